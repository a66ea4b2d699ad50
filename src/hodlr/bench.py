"""Measurements of the package: `python -m hodlr.bench accuracy | growth | compare | power-law`.

accuracy   errors of log det, solutions and derivatives of 200 matrices, beside LAPACK's
growth     operations counted by the compiler, and times, from n = 2¹⁰ to 2¹⁶, with the exponents
compare    solve + slogdet at n = 16384 beside george and celerite2 (extra `bench`) and a dense
           Cholesky factorisation at n = 8192
power-law  terms and errors of `fit_power_law`
"""

import math
import sys
import time

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


def compare(n: int = 16384) -> None:
    """Solve and log-determinant beside the packages that do the same for Gaussian processes."""
    import celerite2  # pyright: ignore[reportMissingImports]  (the bench extra)
    import george  # pyright: ignore[reportMissingImports]

    rng = np.random.default_rng(0)
    matrix, y = _noisy_matrix(n), rng.normal(size=n)
    sites, noise = np.arange(n, dtype=float), np.asarray(matrix.diagonal) - 8.0

    @jax.jit
    def likelihood(matrix, y):
        factorisation = hodlr.factorise(matrix)
        return -0.5 * (
            y @ factorisation.solve(y) + factorisation.slogdet()[1] + n * math.log(2 * math.pi)
        )

    terms = [celerite2.terms.RealTerm(a=1.0, c=c) for c in _rates()]
    process = celerite2.GaussianProcess(celerite2.terms.TermSum(*terms), mean=0.0)

    def by_celerite2():
        process.compute(sites, diag=noise)
        return process.log_likelihood(y)

    kernels = [george.kernels.ExpKernel(1 / c**2) for c in _rates()]
    kernel = kernels[0]
    for other in kernels[1:]:
        kernel = kernel + other
    gaussian = george.GP(kernel, solver=george.HODLRSolver, tol=1e-10, min_size=100)

    def by_george():
        gaussian.compute(sites, np.sqrt(noise))
        return gaussian.log_likelihood(y)

    small = 8192
    small_matrix = _noisy_matrix(small)
    dense = np.asarray(small_matrix.to_dense())
    log_determinant = jax.jit(lambda m: hodlr.factorise(m).slogdet())

    def by_cholesky():
        return np.linalg.cholesky(dense)[-1, -1]

    hodlr_form = jax.jit(hodlr.from_exponentials)(matrix)
    cases = {
        "hodlr, exponential": (lambda: likelihood(matrix, jnp.asarray(y)), 20),
        "hodlr, HODLR": (lambda: likelihood(hodlr_form, jnp.asarray(y)), 2),
        "celerite2": (by_celerite2, 20),
        "george HODLR": (by_george, 2),
        f"dense Cholesky, n = {small}": (by_cholesky, 1),
        f"hodlr, exponential, n = {small}": (lambda: log_determinant(small_matrix), 20),
    }
    for name, (function, repeats) in cases.items():
        print(f"{name:36s} {1e3 * _best(function, repeats=repeats):10.2f} ms", flush=True)
    print(
        f"log-likelihoods: {likelihood(matrix, jnp.asarray(y)):.8f} {by_celerite2():.8f} "
        f"{by_george():.8f}"
    )


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
    COMMANDS = {"accuracy": table, "growth": growth, "compare": compare, "power-law": power_law}
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        sys.exit(f"usage: python -m hodlr.bench {' | '.join(COMMANDS)}")
    COMMANDS[sys.argv[1]]()
