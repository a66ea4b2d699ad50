"""A part of the table of `python -m hodlr.bench accuracy`: errors beside dense LAPACK's."""

import pytest

from hodlr.accuracy import measure
from hodlr.accuracy_cases import cases

CASES = list(cases())


def test_the_table_has_every_kind():
    kinds = {case.kind for case in CASES}
    assert len(CASES) >= 200 and {case.matrix.n for case in CASES} >= {1, 2, 2000}
    for kind in ("positive definite", "indefinite", "skew", "singular leaves", "non-symmetric"):
        assert kind in kinds
    for kind in ("varying diagonal", "ring", "definite ring", "definite HODLR", "shifted HODLR"):
        assert kind in kinds
    dtypes = {str(case.matrix.dtype) for case in CASES}
    assert dtypes == {"float32", "float64", "complex64", "complex128"}


# Few shapes, for each is a program of its own: those of n = 100 in double precision hold all
# general kinds, those of 300 in single precision the definite ones.
@pytest.mark.parametrize("n, dtype, definite", [(100, "float64", False), (300, "float32", True)])
def test_errors_are_at_most_ten_times_lapacks(n, dtype, definite):
    chosen = [
        case
        for case in CASES
        if case.matrix.n == n and case.matrix.dtype == dtype and case.definite == definite
        and not case.hierarchical
    ]  # fmt: skip
    assert len(chosen) >= 12
    for case in chosen:
        row = measure(case)
        assert row.ratio <= 10 and not row.silent, row
