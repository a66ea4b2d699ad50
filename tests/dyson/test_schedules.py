"""How learning rates and shifts fall, and when those of a run begin to."""

import jax
import jax.numpy as jnp
import pytest

from dyson import annealed_rate, decaying_shift
from dyson.app.problem import build
from dyson.app.settings import Settings


def test_schedules_fall():
    rate, shift = annealed_rate(0.08, 40, 30), decaying_shift(1e-2, 1e-4, 40)
    expected = {0: (0.08, 1e-2), 40: (0.08, 1e-3), 70: (0.04, 10**-3.75), 400: (0.08 / 13, 1e-4)}
    for step, (a, b) in expected.items():
        assert abs(float(rate(jnp.asarray(step))) / a - 1) < 1e-12
        assert abs(float(shift(jnp.asarray(step))) / b - 1) < 1e-12


@pytest.mark.parametrize(
    "settings, held",
    [
        ({"steps": 20}, 80),
        ({"steps": 150}, 80),
        ({"steps": 1000}, 930),
        ({"steps": 150, "n_sites": 64, "grow": "32:70"}, 90),
    ],
)
def test_the_learning_rate_is_held_for_all_steps_but_the_last(settings, held):
    settings = Settings(**{"n_sites": 32, "optimiser": "sgd", "learning_rate": 0.25} | settings)
    optimiser = build(settings).vmc.optimiser
    start = optimiser.init(jnp.zeros(()))

    def rate(step):
        state = jax.tree.map(lambda count: jnp.full_like(count, step), start)
        return -float(optimiser.update(jnp.ones(()), state)[0])

    assert rate(0) == rate(held) == 0.25
    assert rate(held + 10) == pytest.approx(0.125)
