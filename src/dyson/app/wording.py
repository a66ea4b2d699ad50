"""Results in words: energies with their error bars, metrics in a line."""

import math

from dyson.app.metrics import Record

# Of samples that do not tell: chains that never moved have no spread (`statistics.if_moved`).
_NOT_KNOWN = "not known"


def summary(result: Record) -> str:
    """The final estimate in one line, compared with the exact energy if that is known."""
    line = (
        f"{result['directory']}, {result['n_sites']} sites: E/N = "
        f"{uncertain(result['energy_per_site'], result['error_per_site'])}, "
        f"V-score {_short(result['v_score'])}"
    )
    if result["exact_energy_per_site"] is None:
        return line + "; no exact value is known for this chain"
    return (
        f"{line}; exact {result['exact_energy_per_site']:.10f}, "
        f"relative error {_short(result['relative_error'])}"
    )


def uncertain(value: float | None, error: float | None) -> str:
    """A value and its error bar, both to two digits of the error."""
    if value is None:
        return "not finite"
    if error is None:
        return f"{value:.6g} ± {_NOT_KNOWN}"
    digits = 10 if error <= 0 else min(10, max(1, 1 - math.floor(math.log10(error))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def figures(record: Record, *, grows: bool) -> str:
    """Metrics of a step in half a line; the number of sites where the chain grows."""
    n_sites, energy, error = record["n_sites"], record["energy"], record["error"]
    return "  ".join(
        [
            f"E/N {uncertain(energy and energy / n_sites, error and error / n_sites)}",
            f"V {_short(record['v_score'])}",
            # there is no room for both
            f"N {n_sites}" if grows else f"acc {_short(record['acceptance'], '.0%')}",
            f"R̂ {_short(record['r_hat'], '.2f')}",
        ]
    )


def _short(value: float | None, form: str = ".1e") -> str:
    return _NOT_KNOWN if value is None else format(value, form)
