"""Measurements of the package: `python -m hodlr.bench COMMAND`, of which there are

accuracy   errors of log det, solutions and derivatives of 200 matrices, beside LAPACK's
growth     operations counted by the compiler, and times, from n = 2¹⁰ to 2¹⁶, with the exponents
compare    a likelihood (solve + log det) at n = 16384 with 8 modes, at regular and irregular times,
           beside celerite2, george and tinygp (extra `bench`; what is not installed is named), and
           a dense Cholesky factorisation at n = 8192
process    a Gaussian process on 10⁵ irregular points (likelihood, gradient, prediction), then 10⁶
power-law  terms and errors of `fit_power_law`
"""

import functools
import math
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import hodlr
from hodlr.accuracy import table


def _best(function, *arguments, repeats: int = 5) -> float:
    """Least wall time of several calls, in seconds, after one to compile."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return min(times)


def _rates() -> np.ndarray:
    return np.geomspace(1e-3, 1, 8)


def _noisy_matrix(n: int) -> hodlr.ExponentialToeplitz:
    """Eight decaying exponentials on both sides, and a noise that differs from point to point."""
    kernel = hodlr.SumOfExponentials(np.ones(8), np.exp(-_rates()))
    return hodlr.ExponentialToeplitz(n, kernel, kernel, 8.0 + 0.09 * (1 + np.arange(n) / n))


def _lapack_operations(n: int, leaf: int, ranks: tuple[int, ...]) -> float:
    """Multiply-adds of the LAPACK calls in a HODLR factorisation, which the compiler does not
    count."""
    columns = sum(ranks)
    total = n * leaf**2 * 2 / 3 + 2 * n * leaf * columns
    for level, rank in enumerate(ranks):
        small = 2 * rank
        total += 2**level * (2 / 3 * small**3 + 2 * small**2 * sum(ranks[:level]))
    return total


def growth() -> None:
    """Exponents of the growth of operations and times with n."""
    sizes = [2**p for p in range(10, 17, 2)]
    names = "matvec", "factorise", "product_band", "ring band"
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for n in sizes:
        matrix = _noisy_matrix(n)
        general = jax.jit(lambda m: hodlr.from_exponentials(m).unshared())(matrix)
        ring = hodlr.ExponentialToeplitz(n, matrix.lower, matrix.upper, matrix.diagonal, True)
        x = jnp.asarray(np.cos(np.arange(n)))
        cases = {
            "matvec": (lambda h, x: h @ x, (general, x)),
            "factorise": (lambda h: hodlr.factorise(h).slogdet(), (general,)),
            "product_band": (lambda m, x: hodlr.product_band(m, x, m, 2), (matrix, x)),
            "ring band": (lambda m, x: hodlr.product_band(m, x, m, 2), (ring, x)),
        }
        for name, (function, arguments) in cases.items():
            compiled = jax.jit(function).lower(*arguments).compile()
            cost = compiled.cost_analysis() or {}
            operations = float(cost["flops"])
            if name == "factorise":
                operations += _lapack_operations(n, general.tree.leaf_size, general.ranks)
            seconds = _best(compiled, *arguments, repeats=3)
            rows[name].append((operations, seconds))
            print(
                f"{name:13s} n = {n:6d}  operations {operations:10.3e}  time {1e3 * seconds:9.2f} "
                "ms",
                flush=True,
            )
    span = math.log(sizes[-1] / sizes[0])
    for name, row in rows.items():
        operations, seconds = (math.log(row[-1][i] / row[0][i]) / span for i in (0, 1))
        print(f"{name:13s} exponent of operations {operations:.3f}, of time {seconds:.3f}")


def _likelihood(matrix, y, *, definite: bool = True):
    """log p(y) for a covariance of mean zero."""
    factorisation = hodlr.factorise(matrix, positive_definite=definite)
    square = y @ factorisation.solve(y) + factorisation.logdet()
    return -(square + y.shape[0] * math.log(2 * math.pi)) / 2


def _by_celerite2(times, noise, y):
    from celerite2 import GaussianProcess, terms  # pyright: ignore[reportMissingImports]

    kernel = terms.TermSum(*(terms.RealTerm(a=1.0, c=c) for c in _rates()))
    process = GaussianProcess(kernel, mean=0.0)

    def likelihood():
        process.compute(times, diag=noise)
        return process.log_likelihood(y)

    return likelihood


def _by_george(times, noise, y):
    import george  # pyright: ignore[reportMissingImports]

    kernel, *others = (george.kernels.ExpKernel(1 / c**2) for c in _rates())
    for other in others:
        kernel = kernel + other
    process = george.GP(kernel, solver=george.HODLRSolver, tol=1e-10, min_size=100)

    def likelihood():
        process.compute(times, np.sqrt(noise))
        return process.log_likelihood(y)

    return likelihood


def _by_tinygp(times, noise, y):
    from tinygp import GaussianProcess  # pyright: ignore[reportMissingImports]
    from tinygp.kernels import quasisep  # pyright: ignore[reportMissingImports]

    @jax.jit
    def likelihood(scales, times, noise, y):
        kernel, *others = (quasisep.Exp(scale=scale) for scale in scales)
        for other in others:
            kernel = kernel + other
        return GaussianProcess(kernel, times, diag=noise).log_probability(y)

    given = [jnp.asarray(a) for a in (1 / _rates(), times, noise, y)]
    return lambda: likelihood(*given)


def compare(n: int = 16384) -> None:
    """The likelihood beside the packages that do the same for Gaussian processes."""
    rng = np.random.default_rng(0)
    matrix, y = _noisy_matrix(n), jnp.asarray(rng.normal(size=n))
    noise = np.asarray(matrix.diagonal) - 8.0
    kernel = hodlr.kernels.decay(1 / _rates()[0])
    for rate in _rates()[1:]:
        kernel = kernel + hodlr.kernels.decay(1 / rate)
    likelihood, gradient = jax.jit(_likelihood), jax.jit(jax.value_and_grad(_likelihood))
    general = jax.jit(functools.partial(_likelihood, definite=False))
    irregular = np.sort(rng.uniform(0, n, n))
    for name, times in (("regular", np.arange(n, dtype=float)), ("irregular", irregular)):
        covariance = hodlr.Covariance(times, kernel, noise)
        rows: dict[str, tuple[Callable[[], Any], int]] = {
            "hodlr, covariance": (lambda c=covariance: likelihood(c, y), 20),
            "hodlr, covariance, gradient too": (lambda c=covariance: gradient(c, y), 20),
        }
        if name == "regular":
            rows |= {
                "hodlr, exponential": (lambda: likelihood(matrix, y), 20),
                "hodlr, exponential, gradient too": (lambda: gradient(matrix, y), 20),
                "hodlr, exponential, any matrix": (lambda: general(matrix, y), 5),
                "hodlr, HODLR": (lambda: likelihood(hodlr.from_exponentials(matrix), y), 2),
            }
        others = {"celerite2": _by_celerite2, "tinygp": _by_tinygp, "george": _by_george}
        print(f"{name} times, n = {n}, {len(_rates())} modes; log-likelihoods in the last column")
        for other, make in others.items():
            try:
                rows[other] = (make(times, noise, np.asarray(y)), 2 if other == "george" else 20)
            except ImportError:
                print(f"  {other:34s} not installed")
        for row, (function, repeats) in rows.items():
            value = jax.tree.leaves(function())[0]
            milliseconds = 1e3 * _best(function, repeats=repeats)
            print(f"  {row:34s} {milliseconds:10.2f} ms   {float(value):.8f}", flush=True)
    small = 8192
    dense = np.asarray(_noisy_matrix(small).to_dense())
    seconds = _best(lambda: np.linalg.cholesky(dense)[-1, -1], repeats=1)
    print(f"dense Cholesky, n = {small}: {1e3 * seconds:.0f} ms")


def process(sizes: tuple[int, ...] = (100_000, 1_000_000)) -> None:
    """A damped oscillation and a Matérn kernel at irregular times with gaps."""
    rng = np.random.default_rng(0)

    def likelihood(p, times, noise, y):
        kernel = p[0] * hodlr.kernels.Matern(p[1]) + hodlr.kernels.Oscillation(p[2], 0.0, p[3], 2.0)
        return _likelihood(hodlr.Covariance(times, kernel, noise), y)

    def predict(p, times, noise, y, new):
        kernel = p[0] * hodlr.kernels.Matern(p[1]) + hodlr.kernels.Oscillation(p[2], 0.0, p[3], 2.0)
        return hodlr.condition(hodlr.Covariance(times, kernel, noise), y).predict(new)

    p = jnp.asarray([1.0, 20.0, 0.5, 0.1])
    for n in sizes:
        times = np.sort(rng.uniform(0, n / 10, n))
        times = jnp.asarray(times + 50 * np.floor(times / 500))
        noise, new = jnp.asarray(10 ** rng.uniform(-3, -1, n)), jnp.linspace(0, times[-1], 10_000)
        y = jnp.sin(times / 30) + jnp.asarray(0.2 * rng.normal(size=n))
        tasks = {
            "likelihood": (jax.jit(likelihood), (p, times, noise, y)),
            "likelihood and gradient": (
                jax.jit(jax.value_and_grad(likelihood)),
                (p, times, noise, y),
            ),
            "prediction at 10 000 times": (jax.jit(predict), (p, times, noise, y, new)),
        }
        for name, (function, arguments) in tasks.items():
            seconds = _best(function, *arguments, repeats=3)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"n = {n:8d}  {name:28s} {seconds:7.3f} s   peak {peak:.2f} GiB", flush=True)


def power_law() -> None:
    """The table of terms of 1/r^alpha, with measured errors."""
    for alpha in (1, 2, 3):
        for n in (10**3, 10**4, 10**5):
            for tol in (1e-6, 1e-10):
                start = time.perf_counter()
                _, info = hodlr.fit_power_law(alpha, n, tol=tol)
                seconds = time.perf_counter() - start
                print(f"alpha {alpha}  n {n:6d}  tol {tol:.0e}  {seconds:5.2f} s  {info}")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    COMMANDS = {
        "accuracy": table, "growth": growth, "compare": compare, "process": process,
        "power-law": power_law,
    }  # fmt: skip
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        sys.exit(f"usage: python -m hodlr.bench {' | '.join(COMMANDS)}")
    COMMANDS[sys.argv[1]]()
