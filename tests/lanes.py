"""Which cases the default lane leaves to the exhaustive one (see conftest.py)."""

import pytest


def later(*values):
    """A case that repeats a law on more of the same kind, or takes long."""
    return pytest.param(*values, marks=pytest.mark.exhaustive)
