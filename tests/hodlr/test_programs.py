"""Outside jit a verb is one program, or a few: operation by operation they would be compiled for
seconds, before anything is computed."""

import jax
import numpy as np
import pytest

import hodlr

N = 77  # of no other test: nothing of this size has been compiled


@pytest.fixture
def compiled():
    """How many programs have been compiled since."""
    count = []
    listener = lambda event, _, **__: count.append(event) if "backend_compile" in event else None
    jax.monitoring.register_event_duration_secs_listener(listener)
    yield count
    jax.monitoring.unregister_event_duration_listener(listener)


KERNEL = hodlr.SumOfExponentials([1.0, 0.5], [0.9, -0.3])


def test_verbs_of_matrices_are_a_few_programs_each(compiled):
    A = hodlr.ExponentialToeplitz(N, KERNEL, KERNEL, 2.0)
    b = np.ones(N)
    verbs = {
        "product": lambda: A @ b,
        "dense": A.to_dense,
        "hierarchical": lambda: hodlr.from_exponentials(A, leaf_size=16),
        "solution": lambda: hodlr.factorise(A).solve(b),
        "determinant": lambda: hodlr.factorise(A).slogdet(),
        "half": lambda: hodlr.factorise(A, positive_definite=True).half_solve(b),
    }
    for name, verb in verbs.items():
        del compiled[:]
        verb()
        assert 0 < len(compiled) <= 40, (name, len(compiled))


def test_a_process_is_conditioned_by_a_few_programs(compiled):
    times = np.sort(np.random.default_rng(0).uniform(0, 10, N))
    kernel = 2.0 * hodlr.kernels.Matern(5.0, 2.5) + hodlr.kernels.Oscillation(1.0, 0.0, 0.1, 3.0)
    covariance = hodlr.Covariance(times, kernel, noise=0.1)
    hodlr.condition(covariance, np.sin(times)).predict(np.linspace(-1, 11, N + 1))
    assert 0 < len(compiled) <= 80  # 600 before each verb was one
