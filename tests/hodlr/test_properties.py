"""Laws that hold for every shape, leaf size, number of modes, dtype and boundary condition."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hodlr
from random_matrices import DTYPES, brute_force, epsilon, random_toeplitz

pytestmark = pytest.mark.usefixtures("quick_compilation")


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 23),
    leaf_size=st.integers(4, 25),
    modes=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dtype=st.sampled_from(DTYPES),
    periodic=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_build_and_solve_for_every_shape(n, leaf_size, modes, dtype, periodic, seed):
    rng = np.random.default_rng(seed)
    matrix = random_toeplitz(rng, n, modes, dtype, periodic, diagonal=8.0, largest=0.7)
    full = brute_force(matrix)
    bound = 50 * epsilon(dtype) * np.linalg.norm(full) * n
    built = hodlr.from_exponentials(matrix, leaf_size=leaf_size)
    assert np.max(np.abs(np.asarray(built.to_dense()) - full)) <= bound
    assert built.tree.padded - n < max(2**built.tree.depth, 1)
    x = jnp.asarray(rng.normal(size=n).astype(dtype))
    for form in (matrix, built):
        b = form @ x
        assert b.dtype == dtype
        again = hodlr.factorise(form).solve(b)
        assert np.max(np.abs(again - x)) <= 50 * epsilon(dtype) * np.linalg.cond(full) * n
