"""The package docstring runs as written."""

import doctest

import hodlr


def test_the_worked_example_of_the_package():
    failures, tests = doctest.testmod(hodlr)
    assert tests >= 5 and failures == 0
