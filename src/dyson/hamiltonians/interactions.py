r"""The usual interactions of spin chains as lists of Pauli strings, to be added up::

    PauliStrings(n, exchange(1.0) + exchange(j2, distance=2), periodic=False)        # J1-J2, open
    PauliStrings(n, exchange((jx, jy, jz)) + field((hx, 0.0, hz)))                   # XYZ
    PauliStrings(n, exchange(1.0) + dzyaloshinskii_moriya((0.0, 0.0, d)) + chirality(k))

S = σ/2.  A coupling is what :class:`dyson.Pauli` takes: a number, an array by site or bond, or a
function of the distance; three of them in a tuple are the components along x, y and z, one alone
stands for all three where that is said.
"""

from collections.abc import Callable

import numpy as np

from dyson.hamiltonians.strings import Coupling, Pauli

Vector = tuple[Coupling, Coupling, Coupling]


def exchange(coupling: Coupling | Vector, *, distance: int = 1) -> list[Pauli]:
    """Σ_i Σ_a J_a Sᵃ_i Sᵃ_{i+distance}; isotropic for one coupling, XYZ for three.

    With a function of the distance, all pairs; ``distance`` is then 1.
    """
    between = _between(distance)
    return [
        Pauli(letter + between + letter, _times(0.25, value))
        for letter, value in zip("XYZ", _components(coupling), strict=True)
        if not _vanishes(value)
    ]


def field(components: Vector) -> list[Pauli]:
    """-Σ_i h · S_i."""
    return [
        Pauli(letter, _times(-0.5, value))
        for letter, value in zip("XYZ", components, strict=True)
        if not _vanishes(value)
    ]


def dzyaloshinskii_moriya(components: Vector, *, distance: int = 1) -> list[Pauli]:
    """Σ_i D · (S_i × S_{i+distance}): complex elements where D has components along x or z.

    Along z and at distance one this is, with D = J, the spin current of the exchange J.
    """
    between = _between(distance)
    terms = []
    for axis, value in enumerate(components):
        if _vanishes(value):
            continue
        first, second = "XYZ"[(axis + 1) % 3], "XYZ"[(axis + 2) % 3]
        terms += [
            Pauli(first + between + second, _times(0.25, value)),
            Pauli(second + between + first, _times(-0.25, value)),
        ]
    return terms


def chirality(coupling: float | np.ndarray) -> list[Pauli]:
    """Σ_i K S_i · (S_{i+1} × S_{i+2}), three spins at a time; complex elements."""
    even, odd = ("XYZ", "YZX", "ZXY"), ("XZY", "YXZ", "ZYX")
    return [Pauli(word, _times(0.125, coupling)) for word in even] + [
        Pauli(word, _times(-0.125, coupling)) for word in odd
    ]


def _between(distance: int) -> str:
    if distance < 1:
        raise ValueError(f"expected a distance of at least 1, got {distance}")
    return "I" * (distance - 1)


def _components(coupling: Coupling | Vector) -> Vector:
    if isinstance(coupling, tuple):
        return coupling
    return coupling, coupling, coupling


def _times(factor: float, coupling: Coupling) -> Coupling:
    if isinstance(coupling, Callable):
        return lambda distance: factor * coupling(distance)
    return factor * np.asarray(coupling)


def _vanishes(coupling: Coupling) -> bool:
    return not callable(coupling) and not np.any(coupling)
