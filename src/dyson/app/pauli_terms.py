"""Sums of Pauli strings as a line of text: ``-1 ZZ, -0.5 X`` is -Σ Z Z - ½ Σ X.

Every term is a coupling and the letters of neighbouring sites, as in `dyson.Pauli`; ``-1 ZZ / r^3``
couples all pairs, by a power of their distance.
"""

import math
import re

from dyson.hamiltonians import Pauli, PauliStrings

_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"
_TERM = re.compile(rf"({_NUMBER})\s*([IXYZ]{{1,64}})(?:\s*/\s*r\^({_NUMBER}))?")


def pauli_strings(n_sites: int, *, terms: str, periodic: bool, marshall: bool) -> PauliStrings:
    """The Hamiltonian that the line describes; arguments and errors as `dyson.PauliStrings`."""
    return PauliStrings(n_sites, parsed(terms), periodic=periodic, marshall=marshall)


def parsed(text: str) -> list[Pauli]:
    """The terms of a line; `ValueError` with what was expected."""
    return [_term(part.strip(), text) for part in text.split(",")]


def _term(part: str, text: str) -> Pauli:
    found = _TERM.fullmatch(part)
    numbers = [float(number) for number in found.group(1, 3) if number] if found else [math.inf]
    if found is None or not all(map(math.isfinite, numbers)):
        raise ValueError(
            "--terms must be couplings with Pauli strings like '-1 ZZ, -0.5 X' or '-1 ZZ / r^3, "
            f"-1 X', got {part[:40]!r} in {text[:80]!r}"
        )
    coupling, letters = numbers[0], found.group(2)
    if len(numbers) == 1:
        return Pauli(letters, coupling)
    return Pauli(letters, lambda r: coupling * r ** -numbers[1])
