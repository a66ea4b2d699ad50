"""The settings of a training run: one table of options with their help, ranges and defaults.

The command line takes its options from this table and a run directory stores it, so a value is
checked in one place wherever it comes from.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from dyson.app import ladder as ladders
from dyson.app.choices import CHOICES, GIVEN, HOLDER, Choice, choice_of, nearest, takers
from dyson.app.ranges import Option, SettingsError, checked, flag_of
from dyson.networks.dysonnet import MIXERS

MOST_SITES = 1_000_000

# Settings that do not shape the state, so that a resumed run may change them.
CHANGEABLE = (
    "steps",
    "chain_length",
    "sweeps",
    "learning_rate",
    "momentum",
    "trust_region",
    "shift",
    "shift_floor",
    "checkpoint_every",
)


def _setting(default: Any, help: str, group: str, **limits: Any) -> Any:
    return dataclasses.field(
        default=default, metadata={"option": Option(help=help, group=group, **limits)}
    )


def _taken(help: str, group: str, **limits: Any) -> Any:
    """A setting that not everything takes, with its default in `dyson.app.choices`."""
    return _setting(None, help, group, **limits)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that determines a training run, bit for bit.

    Settings that the chosen Hamiltonian, network, sampler or optimiser does not take are None, the
    others take their defaults from the tables in `dyson.app.choices`.

    Raises `SettingsError` for a value outside its range, and for one that is not taken.
    """

    n_sites: int = _setting(64, "Sites of the chain.", "Hamiltonian", minimum=1, limit=MOST_SITES)
    hamiltonian: str = _setting("ising", "What is minimised.", "Hamiltonian")
    coupling: float | None = _taken(
        "J of Ising's H = -h Σ X - g Σ Z + J Σ Z Z / r^α, negative is ferromagnetic; "
        "or of Heisenberg's and XXZ's J Σ (SxSx + SySy + Δ SzSz) / r^α.",
        "Hamiltonian",
    )
    exponent: float | None = _taken(
        "Decay α of the coupling with the distance; inf couples nearest neighbours only.",
        "Hamiltonian",
        above=0,
        may_be_infinite=True,
    )
    field: float | None = _taken("Transverse field h.", "Hamiltonian")
    longitudinal: float | None = _taken("Longitudinal field g in -g Σ Z.", "Hamiltonian")
    kac: bool | None = _taken(
        "Divide the coupling by the Kac factor, 1 plus the sum of all r^-α.", "Hamiltonian"
    )
    anisotropy: float | None = _taken("Anisotropy Δ; 0 is the XY chain.", "Hamiltonian")
    j1: float | None = _taken("Exchange J1 of nearest neighbours.", "Hamiltonian")
    j2: float | None = _taken("Exchange J2 of next-nearest neighbours.", "Hamiltonian")
    terms: str | None = _taken(
        "Pauli strings with their couplings, as '-1 ZZ, -0.5 X' or '-1 ZZ / r^3, -1 X'.",
        "Hamiltonian",
    )
    marshall: bool | None = _taken(
        "Rotate every second spin: the ground state of antiferromagnetic neighbours is then "
        "positive, and that is when it is done if not given; otherwise take --complex-head.",
        "Hamiltonian",
    )
    periodic: bool | None = _taken(
        "A ring or an open chain.", "Hamiltonian", flags="--periodic/--open"
    )

    network: str = _setting("dysonnet", "What is log ψ.", "Network")
    features: int | None = _taken("Channels per token.", "Network", minimum=1, limit=100_000)
    depth: int | None = _taken("Number of blocks.", "Network", minimum=1, limit=1_000)
    modes: int | None = _taken(
        "Exponentials per channel of a mixer.", "Network", minimum=1, limit=10_000
    )
    kernel_size: int | None = _taken(
        "Width of the local convolution in tokens, odd.", "Network", minimum=1, limit=100_001
    )
    hidden: int | None = _taken(
        "Outputs of the head before log-cosh.", "Network", minimum=1, limit=1_000_000
    )
    token_size: int | None = _taken(
        "Spins per token; divides the number of sites.", "Network", choices=(1, 2, 4)
    )
    mixer: str | None = _taken(
        "Damped oscillations, real poles, a HiPPO state space or power laws.",
        "Network",
        choices=tuple(MIXERS),
    )
    site_embedding: bool | None = _taken(
        "Tokens know their places, as disorder and edges want it.", "Network"
    )
    patch: int | None = _taken("Spins per patch.", "Network", minimum=1, limit=MOST_SITES)
    heads: int | None = _taken("Heads of the attention.", "Network", minimum=1, limit=100_000)
    density: int | None = _taken(
        "Hidden units per site, or filters of a symmetric RBM.",
        "Network",
        minimum=1,
        limit=100_000,
    )
    complex_head: bool | None = _taken("Complex log ψ, for states with signs.", "Network")
    project: bool | None = _taken(
        "Project on the even spin-flip sector where the chain has the symmetry.",
        "Network",
        flags="--project/--no-project",
    )
    translations: bool | None = _taken(
        "Project on momentum zero, which matters for tokens of more than one spin.", "Network"
    )
    precision: int | None = _taken(
        "Bits of the network's floating-point numbers.", "Network", choices=(32, 64)
    )

    sampler: str = _setting(
        "sweep",
        "Exact sweeps along the chain, by windows or forward passes, whichever costs less (auto "
        "says which and why); Metropolis at random sites; or the screened typewriter.",
        "Sampler",
    )
    chains: int = _setting(128, "Markov chains.", "Sampler", minimum=2, limit=100_000_000)
    chain_length: int = _setting(
        4, "Samples of each chain per step.", "Sampler", minimum=1, limit=100_000_000
    )
    sweeps: int | None = _taken(
        "Sweeps between two samples of a chain.", "Sampler", minimum=1, limit=1_000_000
    )
    magnetisation: int | None = _taken(
        "Sum of the spins, where it is conserved; 0 or 1 if not given.", "Sampler"
    )
    by_environments: bool | None = _taken(
        "Proposals in windows or by forward passes; what costs less if not given.",
        "Sampler",
        flags="--by-environments/--by-forward-passes",
    )
    interval: int | None = _taken(
        "Sites between two proposals of one reference; √N if not given.",
        "Sampler",
        minimum=1,
        limit=MOST_SITES,
    )
    mismatch: float | None = _taken(
        "Rate of wrong decisions that is aimed at.", "Sampler", minimum=0, maximum=0.999
    )

    optimiser: str = _setting(
        "spring", "Natural gradient, with memory or without, or any of optax.", "Optimiser"
    )
    learning_rate: float | None = _taken(
        "Factor on the step for 80 steps, 20 on the last chain of --grow, and all but the last 70; "
        "then it falls like 1/t.",
        "Optimiser",
        above=0,
    )
    momentum: float | None = _taken(
        "How much of the last step is remembered.", "Optimiser", minimum=0, maximum=0.999
    )
    trust_region: float | None = _taken(
        "Longest step in the metric of the state; longer ones are shortened.",
        "Optimiser",
        above=0,
    )
    shift: float | None = _taken(
        "Diagonal shift of the metric at the start; falls tenfold every 40 steps.",
        "Optimiser",
        above=0,
    )
    shift_floor: float | None = _taken("Smallest diagonal shift.", "Optimiser", above=0)

    steps: int = _setting(
        150,
        "Optimisation steps, with those that --grow takes.",
        "Training",
        minimum=1,
        limit=1_000_000_000,
    )
    grow: str = _setting(
        ladders.AUTO,
        "Shorter chains to train on before, with the steps on each, as 32:40,64:10; auto, or off.",
        "Training",
    )
    seed: int = _setting(0, "Seed of all random numbers.", "Training", minimum=0, maximum=2**32 - 1)
    checkpoint_every: int = _setting(
        10,
        "Steps between checkpoints, which a killed run repeats at most.",
        "Training",
        minimum=1,
        limit=1_000_000_000,
    )

    def __post_init__(self) -> None:
        for kind in CHOICES:
            checked(kind, getattr(self, kind), str, option_of(kind))
        for name in names():
            value, kind = getattr(self, name), HOLDER.get(name)
            if kind is not None:
                value = self._taken_value(kind, name, value)
            if kind is None or value is not None:
                value = checked(name, value, kinds()[name], option_of(name))
            object.__setattr__(self, name, value)
        if self.kernel_size is not None and self.kernel_size % 2 == 0:
            raise SettingsError(f"{flag_of('kernel_size')} must be odd, got {self.kernel_size}")
        if self.n_sites % self._token:
            raise SettingsError(
                f"{flag_of('n_sites')} must be a multiple of {flag_of('token_size')}, "
                f"got {self.n_sites} sites in tokens of {self.token_size}"
            )
        # written out, so that a run keeps its ladder whatever becomes of the automatic one
        object.__setattr__(self, "grow", ladders.written(self.ladder))

    def choice(self, kind: str) -> Choice:
        """What was chosen as "hamiltonian", "network", "sampler" or "optimiser"."""
        try:
            return choice_of(kind, getattr(self, kind))
        except ValueError as error:
            raise SettingsError(f"{flag_of(kind)} {error}") from error

    def of(self, kind: str) -> dict[str, Any]:
        """The settings that what was chosen takes, with their values."""
        return {name: getattr(self, name) for name in self.choice(kind).settings}

    @property
    def ladder(self) -> tuple[ladders.Rung, ...]:
        """The shorter chains that come before that of ``n_sites``."""
        # networks that know one length only, objects of that length, and a number of up spins that
        # is another filling on each
        alone = self.site_embedding is not False or GIVEN in (self.hamiltonian, self.network)
        alone |= abs(self.magnetisation or 0) > 1
        text = ladders.OFF if alone and self.grow == ladders.AUTO else self.grow
        try:
            return ladders.ladder(text, self.n_sites, self._token, self.steps)
        except ValueError as error:
            raise SettingsError(f"{flag_of('grow')} {error}") from error

    @property
    def _token(self) -> int:
        return self.token_size or 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """The chains of the run in their order."""
        return (*(rung.n_sites for rung in self.ladder), self.n_sites)

    def sites_at(self, step: int) -> int:
        """The chain on which a step is taken."""
        ends = itertools.accumulate(rung.steps for rung in self.ladder)
        return self.sizes[sum(step > end for end in ends)]

    def on(self, n_sites: int) -> "Settings":
        """The settings of one chain of the run, with those that come before it."""
        number = self.sizes.index(n_sites)
        before = ladders.written(self.ladder[:number])
        return dataclasses.replace(self, n_sites=n_sites, grow=before)

    def alone_on(self, n_sites: int) -> "Settings":
        """The settings on a chain of any length, with none that comes before it."""
        return dataclasses.replace(self, n_sites=n_sites, grow=ladders.OFF)

    def to_json(self) -> dict[str, Any]:
        """Plain values of all that is set; infinity, which JSON does not know, becomes the string
        "inf"."""
        return {k: "inf" if v == math.inf else v for k, v in self.to_table().items()}

    def to_table(self) -> dict[str, Any]:
        """The values of all that is set, as `from_table` reads them."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}

    @classmethod
    def from_json(cls, values: Any) -> "Settings":
        """The inverse of `to_json`. Every setting that is taken has to be there, and nothing
        else."""
        if not isinstance(values, dict):
            raise SettingsError("the settings are not a table of names and values")
        if None in values.values():
            raise SettingsError("a setting is null")
        decoded: dict[str, Any] = {k: math.inf if v == "inf" else v for k, v in values.items()}
        settings = cls.from_table(decoded)
        if missing := settings.to_json().keys() - values.keys():
            raise SettingsError(f"missing setting {', '.join(sorted(missing))[:300]}")
        return settings

    @classmethod
    def from_table(cls, values: Mapping[str, Any]) -> "Settings":
        """Settings by name, the others as by default; `SettingsError` that suggests the nearest
        name for one that there is not."""
        if odd := sorted(values.keys() - set(names())):
            near = nearest(odd[0], names()) if len(odd) == 1 else ""
            raise SettingsError(f"unknown setting {', '.join(odd)[:300]}{near}")
        return cls(**values)

    def _taken_value(self, kind: str, name: str, value: Any) -> Any:
        """The value of a setting that not everything takes."""
        taken = self.choice(kind).settings
        if name in taken:
            return taken[name] if value is None else value
        if value is None:
            return None
        raise SettingsError(
            f"{flag_of(name)} belongs to {flag_of(kind)} {takers(name)}, "
            f"got {flag_of(kind)} {getattr(self, kind)}"
        )


@functools.cache
def names() -> tuple[str, ...]:
    """The names of all settings, in the order of the table."""
    return tuple(field.name for field in dataclasses.fields(Settings))


@functools.cache
def kinds() -> dict[str, type]:
    """The types of all settings where they have a value."""
    hints = get_type_hints(Settings)
    return {
        name: next(kind for kind in (get_args(hint) or (hint,)) if kind is not type(None))
        for name, hint in hints.items()
    }


def option_of(name: str) -> Option:
    """The `Option` of a setting."""
    return Settings.__dataclass_fields__[name].metadata["option"]
