"""Trainings from many seeds, as `dyson bench seeds` makes them: none diverges or stalls."""

import pytest

from dyson.app.bench.seeds import SYSTEMS, Row, trainings
from dyson.app.settings import Settings

SMALL = {"n_sites": 6, "features": 3, "hidden": 2, "depth": 1, "chains": 16, "steps": 30}


def test_every_seed_ends_below_where_it_was_early():
    settings = Settings(**SMALL)
    first, second = trainings("small", settings, [0, 1])
    assert first.good and second.good and first.energy != second.energy
    assert max(first.relative_error, second.relative_error) < 0.1


def test_a_training_that_rises_or_has_no_energy_is_not_good():
    row = Row(
        "small",
        0,
        30,
        early=-1.0,
        early_error=0.01,
        energy=-1.1,
        error=0.01,
        v_score=0.1,
        relative_error=None,
        seconds=1.0,
    )
    assert row.good
    for energy in (-0.9, None):
        assert not row._replace(energy=energy).good
    assert not row._replace(early=None).good
    assert row._replace(energy=-0.99).good  # as low as it was, within the error bars


@pytest.mark.parametrize("system", SYSTEMS)
def test_systems_are_settings(system):
    assert Settings(**SYSTEMS[system]).n_sites == SYSTEMS[system]["n_sites"]
