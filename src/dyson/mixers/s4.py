"""The structured state-space model S4: a diagonal plus rank-one transition that starts at HiPPO."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dyson.mixers.base import Mixer, decay_lengths
from hodlr import SumOfExponentials, integer_power


class S4(Mixer):
    """``G(r) = Re[C A^|r| B] + local delta_{r,0}`` with a state of ``modes`` numbers per channel.

    The continuous transition is ``diag(-exp(log_decay) + i wave) - p p^*``, so that every state
    decays; it starts as the normal part of the HiPPO-LegS matrix, with p its low rank.  One token
    is a step exp(log_step) of the bilinear rule, A = (1 - step/2 a)^-1 (1 + step/2 a).

    ``kernel`` sums the geometric series of A at the roots of unity and transforms back, in
    O(modes * n log n), which needs no eigenvalue and is what training differentiates.
    ``exponentials`` are the eigenvalues of A and their residues, for local updates: one matrix of
    modes x modes per channel, on the CPU.
    Reference: S4 (Gu, Goel, Re, ICLR 2022); the token mixer of arXiv:2603.11189.
    """

    log_decay: Float[Array, "features modes"]
    wave: Float[Array, "features modes"]
    low_rank: Float[Array, "2 features modes"]
    input: Float[Array, "2 features modes"]
    output: Float[Array, "2 features modes"]
    log_step: Float[Array, " features"]
    local: Float[Array, " features"]

    def __init__(self, features: int, modes: int, n_tokens: int, *, dtype, key: jax.Array):
        step_key, output_key, local_key = jax.random.split(key, 3)
        eigenvalues, low_rank, source = _hippo(modes)

        def repeated(x: np.ndarray) -> Array:
            shape = (*x.shape[:-1], features, modes)
            return jnp.broadcast_to(jnp.asarray(x, dtype)[..., None, :], shape)

        self.log_decay = repeated(np.log(-np.real(eigenvalues)))
        self.wave = repeated(np.imag(eigenvalues))
        self.low_rank = repeated(np.stack([np.real(low_rank), np.imag(low_rank)]))
        self.input = repeated(np.stack([np.real(source), np.imag(source)]))
        self.output = jax.random.normal(output_key, (2, features, modes), dtype) / modes**0.5
        # the slowest HiPPO state decays as exp(-r step / 2)
        lengths = decay_lengths(step_key, (features, 1), n_tokens)[:, 0]
        self.log_step = -jnp.log(lengths).astype(dtype)
        self.local = jax.random.normal(local_key, (features,), dtype)

    def _state_space(self) -> tuple[Array, Array, Array, Array, Array]:
        """Eigenvalues of the normal part, p, B, C and the step: complex, (features, modes)."""
        rate = jax.lax.complex(-jnp.exp(self.log_decay), self.wave)
        low_rank, source, output = (
            jax.lax.complex(*x) for x in (self.low_rank, self.input, self.output)
        )
        step = jax.lax.complex(jnp.exp(self.log_step), jnp.zeros_like(self.log_step))[:, None]
        return rate, low_rank, source, output, step

    def _discrete(self) -> tuple[Array, Array, Array]:
        """A (features, modes, modes), B and C (features, modes)."""
        rate, p, source, output, step = self._state_space()
        continuous = jax.vmap(jnp.diag)(rate) - p[:, :, None] * jnp.conj(p)[:, None]
        half = step[..., None] / 2 * continuous
        identity = jnp.eye(rate.shape[1], dtype=rate.dtype)
        right = jnp.concatenate([identity + half, (step * source)[..., None]], axis=2)
        both = jnp.linalg.solve(identity - half, right)
        return both[..., :-1], both[..., -1], output

    def kernel(
        self, lags: Int[Array, " lags"], n_tokens: int, *, periodic: bool
    ) -> Float[Array, "features lags"]:
        """``G(r)`` at the given lags, 0 <= r < n_tokens."""
        rate, p, source, output, step = self._state_space()
        transition, first, _ = self._discrete()
        if not periodic:
            # the series ends before lag n_tokens: what comes later is taken off
            rest = jnp.linalg.matrix_power(transition, n_tokens)
            output = output - jnp.einsum("fi,fij->fj", output, rest)
        z = jnp.exp(jnp.asarray(-2j * np.pi * np.arange(n_tokens) / n_tokens, rate.dtype))
        # sum_r C A^r B z^r by the bilinear rule and the Woodbury formula, a vector per z
        half = step / 2 * (1 + z)  # (features, z)
        resolvent = 1 / ((1 - z) - half[:, None] * rate[..., None])  # (features, modes, z)
        inner = lambda left, right: jnp.sum((left * right)[..., None] * resolvent, axis=1)
        along = inner(output, p) * inner(jnp.conj(p), source)
        sums = inner(output, source) - half * along / (1 + half * inner(jnp.conj(p), p))
        one_way = jnp.real(jnp.fft.ifft(step * sums, axis=1))
        if periodic:  # all images of both directions; lag 0 itself counts once
            one_way = one_way + one_way[:, -jnp.arange(n_tokens) % n_tokens]
            once = jnp.real(jnp.sum(output * first, axis=1))
            one_way = one_way.at[:, 0].add(-once)
        return one_way[:, lags] + jnp.where(lags == 0, self.local[:, None], 0)

    def exponentials(self) -> SumOfExponentials:
        transition, source, output = self._discrete()
        poles, vectors = jnp.linalg.eig(transition)
        inputs = jnp.linalg.solve(vectors, source[..., None])[..., 0]
        weights = jnp.einsum("fi,fij->fj", output, vectors) * inputs
        return jax.vmap(SumOfExponentials)(weights, poles)

    def powers(self, r: Int[Array, " lags"]) -> Array:
        poles, _ = jnp.linalg.eig(self._discrete()[0])
        return integer_power(poles[..., None], r)


def _hippo(modes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues of the normal part of HiPPO-LegS, and in its eigenbasis p and B."""
    root = np.sqrt(2 * np.arange(modes) + 1.0)
    matrix = -np.tril(root[:, None] * root, -1) - np.diag(np.arange(modes) + 1.0)
    low_rank = root / np.sqrt(2)
    normal = matrix + low_rank[:, None] * low_rank  # -1/2 and a skew part
    waves, vectors = np.linalg.eigh(1j * (normal + 0.5 * np.eye(modes)))
    return -0.5 - 1j * waves, vectors.conj().T @ low_rank, vectors.conj().T @ root
