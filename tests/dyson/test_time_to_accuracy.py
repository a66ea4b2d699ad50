"""The clock of `dyson bench time-to-accuracy`."""

import time

import numpy as np
import pytest

from dyson.app.bench.time_to_accuracy import Course, reached, ways


def test_estimates_are_not_on_the_clock_and_the_last_target_ends_a_course():
    marks, asked = [], []
    course = Course("way", 8, patience=60.0, on_mark=marks.append)
    errors = iter([0.1, 5e-4, -5e-4, 5e-6, -5e-6])

    def estimate(until):
        asked.append(until)
        time.sleep(0.2)
        return course.exact * (1 - next(errors)), 0.9 * until * abs(course.exact)

    over = []
    for step in range(5):
        course.due = 0.0
        over.append(course.is_over(step, estimate))
    assert over == [False, False, False, False, True]
    # as precise as the target ahead takes it
    np.testing.assert_allclose(asked, np.array([1e-3, 1e-3, 1e-4, 1e-4, 1e-5]) / 3)
    np.testing.assert_allclose([m.relative_error for m in marks], [0.1, 5e-4, -5e-4, 5e-6, -5e-6])
    assert marks[-1].seconds < 0.2
    found = [reached(marks, target) for target in (1e-3, 1e-4, 1e-5, 1e-6)]
    assert found == [marks[1].seconds, marks[3].seconds, marks[4].seconds, None]
    course.due = np.inf
    assert not course.is_over(5, estimate)  # none is due


@pytest.mark.parametrize("energy", [np.nan, -1.0])
def test_a_course_ends_without_an_energy_or_without_patience(energy):
    course = Course("way", 8, patience=60.0 if np.isnan(energy) else 0.0, on_mark=lambda mark: None)
    assert course.is_over(0, lambda until: (energy, 0.1))


def test_dysonnet_needs_nothing_else():
    assert next(iter(ways([0.1]))) == "DysonNet"
