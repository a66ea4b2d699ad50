"""What settings describe, built: Hamiltonian, network, sampler and optimiser."""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from dyson import exact
from dyson.app import own
from dyson.app.choices import GIVEN, is_own
from dyson.app.ranges import SettingsError, flag_of
from dyson.app.settings import Settings
from dyson.devices import placed
from dyson.hamiltonians import Hamiltonian
from dyson.networks import Network, SpinFlip, Translations
from dyson.optimisers import annealed_rate, decaying_shift
from dyson.samplers import Sampler
from dyson.vmc.state import VMCState
from dyson.vmc.vmc import VMC


@dataclasses.dataclass(frozen=True)
class Problem:
    """What the settings describe, built."""

    hamiltonian: Hamiltonian
    vmc: VMC
    network: Callable[[], Network]
    """The network before the first step; may be traced, to know the shapes alone."""
    initial_state: Callable[[], VMCState]
    """The state before the first step; may be traced as well."""

    @functools.cached_property
    def network_shapes(self) -> Network:
        """The network without its values."""
        return eqx.filter_eval_shape(self.network)

    @functools.cached_property
    def state_shapes(self) -> VMCState:
        """The state without its values: the shapes of its arrays and where they belong."""
        return placed(eqx.filter_eval_shape(self.initial_state))

    @functools.cached_property
    def exact_energy(self) -> float | None:
        """The exact total energy of the sector that is sampled, if it is known; may take seconds,
        once."""
        try:
            sector = self.vmc.sampler.magnetisation
            return exact.ground_energy(self.hamiltonian, magnetisation=sector)
        except MemoryError:  # a reference is not worth losing a result for
            return None


Problems = Callable[[int], Problem]
"""The problem on each chain of a run, by its number of sites."""


@dataclasses.dataclass(frozen=True)
class Given:
    """Objects of a program for what the settings say is "given": a Hamiltonian and a network, or
    functions of the number of sites that make them (a network with a ``key``); a sampler, or a
    function of the Hamiltonian; and an optimiser."""

    hamiltonian: Hamiltonian | Callable[[int], Hamiltonian] | None = None
    network: Network | Callable[..., Network] | None = None
    sampler: Sampler | Callable[[Hamiltonian], Sampler] | None = None
    optimiser: optax.GradientTransformation | None = None

    def object(self, kind: str, *, makes: type, arguments: tuple = (), **options: Any) -> Any:
        """That of a kind, made where it is a function; `ValueError` for anything else."""
        found = getattr(self, kind)
        if found is None:
            raise ValueError(
                f"{flag_of(kind)} {GIVEN} stands for an object in a call of dyson.train; give a "
                "name instead"
            )
        if not isinstance(found, makes) and callable(found):
            found = found(*arguments, **options)
        if not isinstance(found, makes):
            raise ValueError(f"{kind}: expected a {makes.__name__}, got {type(found).__name__}")
        return found


NOTHING = Given()

# Steps at the full learning rate, at least: in all, and on a chain that a state has grown to.
HOLD, HOLD_GROWN = 80, 20
# Steps after them, at most: in fewer the noise has hardly cooled, and later ones learn little.
COOLING = 70


def problems_of(settings: Settings, build: Callable[[Settings], Problem]) -> Problems:
    """What :func:`build` makes of each chain of a run, once."""
    return functools.cache(lambda n_sites: build(settings.on(n_sites)))


def build(settings: Settings, given: Given = NOTHING) -> Problem:
    """Hamiltonian, network, sampler and optimiser of a run.

    Raises `SettingsError`, as does the network when it is made, or its shapes are looked at.
    """
    with _refusals():
        hamiltonian = _hamiltonian(settings, given)
        sampler = _sampler(settings, given, hamiltonian)
        optimiser = _optimiser(settings, given)
        vmc = VMC(hamiltonian, sampler, optimiser, chain_length=settings.chain_length)

    def network() -> Network:
        with _refusals():
            return _network(settings, given, hamiltonian, sampler.magnetisation)

    def initial_state() -> VMCState:
        _, state_key = _initial_keys(settings)
        return vmc.init(state_key, network())

    return Problem(hamiltonian, vmc, network, initial_state)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What the library says of wrong values is a sentence about the settings."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise SettingsError(str(error)) from error


def _hamiltonian(settings: Settings, given: Given) -> Hamiltonian:
    name, n_sites = settings.hamiltonian, settings.n_sites
    make = settings.choice("hamiltonian").make
    if make is not None:
        return make(n_sites, **settings.of("hamiltonian"))
    if is_own(name):
        found = own.called(flag_of("hamiltonian"), name, n_sites, kind=Hamiltonian)
    else:
        found = given.object("hamiltonian", makes=Hamiltonian, arguments=(n_sites,))
    return _of_length("Hamiltonian", found, n_sites)


def _network(
    settings: Settings, given: Given, hamiltonian: Hamiltonian, magnetisation: int | None
) -> Network:
    """Made for the first chain of the run, and grown from there."""
    n_sites, key = settings.sizes[0], _initial_keys(settings)[0]
    values = settings.of("network")
    project, translations = values.pop("project", False), values.pop("translations", False)
    make = settings.choice("network").make
    if make is not None:
        precision = values.pop("precision")
        values["dtype"] = jnp.float32 if precision == 32 else jnp.float64
        if "periodic" in inspect.signature(make).parameters:
            values["periodic"] = hamiltonian.periodic
        model = make(n_sites, key=key, **values)
    elif is_own(settings.network):
        model = own.called(flag_of("network"), settings.network, n_sites, key=key, kind=Network)
    else:
        model = given.object("network", makes=Network, arguments=(n_sites,), key=key)
    model = _of_length("network", model, n_sites)
    if translations:
        if not hamiltonian.periodic:
            raise SettingsError(
                f"{flag_of('translations')} takes a ring, got an open chain; leave it out"
            )
        model = Translations(model)
    # of a sector, the flip of all spins would lead into another one
    if project and hamiltonian.spin_flip_symmetric and not magnetisation:
        model = SpinFlip(model)
    return model if n_sites == settings.n_sites else model.resized(settings.n_sites)


def _sampler(settings: Settings, given: Given, hamiltonian: Hamiltonian) -> Sampler:
    make = settings.choice("sampler").make
    if make is not None:
        return make(hamiltonian, settings.chains, **settings.of("sampler"))
    found = given.object("sampler", makes=Sampler, arguments=(hamiltonian,))
    if found.n_chains != settings.chains:
        raise ValueError(
            f"the sampler given has {found.n_chains} chains, where {settings.chains} were asked "
            f"for; leave chains out, or write chains={found.n_chains}"
        )
    return _of_length("sampler", found, settings.n_sites)


def _optimiser(settings: Settings, given: Given) -> optax.GradientTransformation:
    make, values = settings.choice("optimiser").make, settings.of("optimiser")
    if make is None:
        return given.object("optimiser", makes=optax.GradientTransformation)
    values["learning_rate"] = annealed_rate(values["learning_rate"], hold=_hold(settings))
    if "shift" in values:
        values["shift"] = decaying_shift(values["shift"], values.pop("shift_floor"))
    return make(**values)


def _hold(settings: Settings) -> int:
    """Steps at the full learning rate: what a chain of its own takes, on a grown one those that
    its longer waves take, which decay by the sum of the rates times their small energy, and in a
    long run nearly all: where the rate falls like 1/t, ten times the steps are three times their
    sum."""
    before = sum(rung.steps for rung in settings.ladder)
    return max(HOLD, before + HOLD_GROWN if before else 0, settings.steps - COOLING)


def _of_length(name: str, found: Any, n_sites: int) -> Any:
    if found.n_sites != n_sites:
        raise ValueError(
            f"the {name} has {found.n_sites} sites, where {n_sites} were asked for; one that is "
            "made by a function of the number of sites fits every chain"
        )
    return found


def doubt(settings: Settings) -> str | None:
    """What is allowed and will hardly be meant, in a sentence."""
    neighbours = settings.coupling or settings.j1 or 0.0
    if settings.marshall is False and neighbours > 0 and settings.complex_head is False:
        return (
            "a real log ψ has no signs, and without the Marshall rotation the ground state of "
            "antiferromagnetic neighbours has: take --complex-head, or leave out --no-marshall"
        )
    if (settings.j2 or 0.0) > 0 and settings.complex_head is False:
        return (
            "a real log ψ has no signs of its own, and under frustration (--j2 above 0) the "
            "Marshall rotation does not know all of them: the energy may end too high by more than "
            "its error bar; take --complex-head"
        )
    return None


def _initial_keys(settings: Settings) -> tuple[jax.Array, jax.Array]:
    model_key, state_key = jax.random.split(jax.random.key(settings.seed))
    return model_key, state_key
