"""What settings can name: Hamiltonians, networks, samplers and optimisers, and which further
settings each of them takes, with their defaults.

These tables are the only place that knows the names: `Settings` checks against them, the help of
the command line and `problem.build` follow from them.
"""

import dataclasses
import difflib
import functools
import inspect
import math
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import optax

from dyson.app.pauli_terms import pauli_strings
from dyson.baselines import RBM, Jastrow, SymmetricRBM, ViT
from dyson.hamiltonians import J1J2, XXZ, Ising
from dyson.networks import DysonNet, Network
from dyson.optimisers import minsr, spring, sr
from dyson.samplers import Metropolis, Sweep, Typewriter

GIVEN = "given"
"""Stands for an object that a program has given to `dyson.train`."""
AUTO_SAMPLER = "auto"


@dataclasses.dataclass(frozen=True)
class Choice:
    """Something that has a name, and what else may be set for it."""

    make: Callable[..., Any] | None
    """What builds it; None for an object of the user's own."""
    settings: Mapping[str, Any]
    """The settings that it takes, with their defaults; None leaves the decision to the library."""


def _rbm(n_sites: int, *, density: int = 1, complex_head: bool = False, **options: Any) -> Network:
    return RBM(n_sites, density=density, complex_weights=complex_head, **options)


def _symmetric_rbm(
    n_sites: int, *, periodic: bool, density: int = 4, complex_head: bool = False, **options: Any
) -> Network:
    if not periodic:
        raise ValueError("--network symmetric-rbm takes a ring, got an open chain; take rbm")
    return SymmetricRBM(n_sites, density=density, complex_weights=complex_head, **options)


def _jastrow(
    n_sites: int, *, periodic: bool, complex_head: bool = False, **options: Any
) -> Network:
    return Jastrow(n_sites, periodic=periodic, complex_weights=complex_head, **options)


_LATTICE = {"periodic": True}
_POWER_LAW = {"exponent": math.inf, "kac": False}
_NUMBERS = {"complex_head": False, "precision": 32, "project": True}
_AMPLITUDE = _NUMBERS | {"features": 16, "depth": 2, "hidden": 8}
_CHAINS = {"sweeps": 1, "magnetisation": None}
_NATURAL = {"learning_rate": 0.2, "trust_region": 0.1, "shift": 1e-2, "shift_floor": 1e-4}

HAMILTONIANS = {
    "ising": Choice(
        Ising, _LATTICE | _POWER_LAW | {"coupling": -1.0, "field": 1.0, "longitudinal": 0.0}
    ),
    "heisenberg": Choice(XXZ, _LATTICE | _POWER_LAW | {"coupling": 1.0, "marshall": None}),
    "xxz": Choice(
        XXZ, _LATTICE | _POWER_LAW | {"coupling": 1.0, "anisotropy": 1.0, "marshall": None}
    ),
    "j1j2": Choice(J1J2, _LATTICE | {"j1": 1.0, "j2": 0.0, "marshall": None}),
    "pauli": Choice(pauli_strings, _LATTICE | {"terms": "", "marshall": False}),
}
NETWORKS = {
    "dysonnet": Choice(
        DysonNet,
        _AMPLITUDE
        | {"modes": 1, "kernel_size": 3, "token_size": 1, "mixer": "s4d", "site_embedding": False}
        | {"translations": False},
    ),
    "vit": Choice(ViT, _AMPLITUDE | {"patch": 4, "heads": 4}),
    "rbm": Choice(_rbm, _NUMBERS | {"density": 1}),
    "symmetric-rbm": Choice(_symmetric_rbm, _NUMBERS | {"density": 4}),
    "jastrow": Choice(_jastrow, _NUMBERS),
}
SAMPLERS = {
    "sweep": Choice(Sweep, _CHAINS | {"by_environments": None}),
    AUTO_SAMPLER: Choice(Sweep, _CHAINS),
    "metropolis": Choice(Metropolis, _CHAINS),
    "typewriter": Choice(Typewriter, {"sweeps": 1, "interval": None, "mismatch": 1e-3}),
}
OPTIMISERS = {
    "spring": Choice(spring, _NATURAL | {"momentum": 0.9}),
    "minsr": Choice(minsr, _NATURAL),
    "sr": Choice(sr, _NATURAL),
}
CHOICES: dict[str, dict[str, Choice]] = {
    "hamiltonian": HAMILTONIANS,
    "network": NETWORKS,
    "sampler": SAMPLERS,
    "optimiser": OPTIMISERS,
}
"""By the setting that holds the name."""

OWN: dict[str, Choice] = {
    "hamiltonian": Choice(None, {}),
    "network": Choice(None, {"project": True}),
}
"""What may be named as ``module:object``."""
_OPTAX_SETTINGS = {"learning_rate": 1e-2}

HOLDER = {
    name: kind
    for kind, table in CHOICES.items()
    for each in table.values()
    for name in each.settings
}
"""For a setting that not everything takes, the setting whose choice decides."""


def is_own(name: str) -> bool:
    """Whether a name is of the form ``module:object``."""
    return re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", name) is not None


def choice_of(kind: str, name: str) -> Choice:
    """What a name stands for.

    Arguments:
      kind: "hamiltonian", "network", "sampler" or "optimiser".
      name: one of its names, of optax where it is an optimiser, or ``module:object`` where that is
        allowed.
    `ValueError` with what was expected.
    """
    table = CHOICES[kind]
    if name in table:
        return table[name]
    if name == GIVEN:
        return Choice(None, {})
    if kind in OWN and is_own(name):
        return OWN[kind]
    if kind == "optimiser" and name in optax_names():
        return Choice(getattr(optax, name), _OPTAX_SETTINGS)
    near = nearest(name, [*table, *(optax_names() if kind == "optimiser" else ())])
    raise ValueError(f"must be {expected(kind)}, got {reprlib.repr(name)[1:-1]}{near}")


def expected(kind: str) -> str:
    """The names in words."""
    others = {"optimiser": "an optimiser of optax such as adam"}
    others |= dict.fromkeys(OWN, "module:object of your own")
    names = list(CHOICES[kind])
    if kind in others:
        return f"{', '.join(names)} or {others[kind]}"
    return f"one of {', '.join(names)}"


def takers(name: str) -> str:
    """The names of all that take a setting, in words."""
    found = _takers(name)
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} or {found[-1]}"


def everything_takes(name: str) -> bool:
    """Whether a setting is taken by all that has a name."""
    kind = HOLDER[name]
    return len(_takers(name)) == len(CHOICES[kind]) + (kind == "optimiser")


def _takers(name: str) -> list[str]:
    return [each for found in defaults(name).values() for each in found]


def defaults(name: str) -> dict[Any, list[str]]:
    """The defaults of a setting that not everything takes, each with those that have it."""
    found: dict[Any, list[str]] = {}
    others = [("optax", Choice(None, _OPTAX_SETTINGS))] if HOLDER[name] == "optimiser" else []
    for each, choice in [*CHOICES[HOLDER[name]].items(), *others]:
        if name in choice.settings:
            found.setdefault(choice.settings[name], []).append(each)
    return found


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` where one of the known names is close, else nothing."""
    found = difflib.get_close_matches(name[:100], list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


@functools.cache
def optax_names() -> tuple[str, ...]:
    """The optimisers of optax that want a learning rate, which may be a schedule, and nothing else:
    no random numbers either."""
    return tuple(name for name in dir(optax) if _is_optimiser(getattr(optax, name)))


def _is_optimiser(candidate: Any) -> bool:
    if not inspect.isfunction(candidate) or candidate.__name__.startswith("scale_by"):
        return False
    parameters = inspect.signature(candidate).parameters
    required = {name for name, each in parameters.items() if each.default is each.empty}
    if (
        not required <= {"learning_rate"} <= parameters.keys()
        or {"key", "seed"} & parameters.keys()
    ):
        return False
    accepted = str(parameters["learning_rate"].annotation)
    return "Schedule" in accepted or "Callable" in accepted
