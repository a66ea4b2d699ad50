"""What settings can name: the objects of the library, and those of the user."""

import inspect
import json
import sys

import equinox as eqx
import jax
import optax
import pytest

from dyson import J1J2, XXZ, Ising, Metropolis, PauliStrings, SpinFlip, Sweep, Translations
from dyson.app import choices
from dyson.app.engine import engine_sentence
from dyson.app.own import called
from dyson.app.problem import build, problems_of
from dyson.app.ranges import SettingsError
from dyson.app.settings import Settings, names
from dyson.baselines import RBM, Jastrow, SymmetricRBM, ViT
from dyson.hamiltonians import Hamiltonian
from dyson.samplers import Typewriter
from dyson.samplers.moves import EXCHANGES
from dyson.samplers.passes import environments_pay

NAMED = [
    ({"coupling": 2.0, "exponent": 3, "kac": True, "field": 0.5}, lambda n: Ising(
        n, coupling=2.0, exponent=3, kac=True, field=0.5
    )),
    ({"longitudinal": 0.3, "periodic": False}, lambda n: Ising(
        n, longitudinal=0.3, periodic=False
    )),
    ({"hamiltonian": "heisenberg"}, lambda n: XXZ(n)),
    ({"hamiltonian": "heisenberg", "exponent": 2.0}, lambda n: XXZ(n, exponent=2.0)),
    ({"hamiltonian": "xxz", "anisotropy": 0.0, "exponent": 3.0, "coupling": -1.0}, lambda n: XXZ(
        n, anisotropy=0.0, exponent=3.0, coupling=-1.0
    )),
    ({"hamiltonian": "j1j2", "j2": 0.4, "marshall": False}, lambda n: J1J2(
        n, j2=0.4, marshall=False
    )),
    ({"hamiltonian": "j1j2", "j1": -1.0, "j2": 0.4}, lambda n: J1J2(n, j1=-1.0, j2=0.4)),
    ({"hamiltonian": "pauli", "terms": "-1 ZZ, -.5 X,0.3XY, -3e-1 YX"}, lambda n: PauliStrings(
        n, [("ZZ", -1.0), ("X", -0.5), ("XY", 0.3), ("YX", -0.3)]
    )),
    ({"hamiltonian": "pauli", "terms": "-1 ZZ / r^3, -1 X", "periodic": False}, lambda n: (
        PauliStrings(n, [("ZZ", lambda r: -(r**-3.0)), ("X", -1.0)], periodic=False)
    )),
]  # fmt: skip


@pytest.mark.parametrize("values, make", NAMED, ids=[str(values) for values, _ in NAMED])
def test_a_named_hamiltonian_is_that_of_the_library(values, make):
    built = build(Settings(n_sites=6, **values))
    assert bool(eqx.tree_equal(built.hamiltonian, make(6)))
    assert isinstance(built.network_shapes, SpinFlip) is built.hamiltonian.spin_flip_symmetric


@pytest.mark.parametrize("kind", choices.CHOICES)
def test_the_tables_agree_with_the_library_and_the_settings(kind):
    """Names are settings, and defaults those of what is built, where these are numbers."""
    for name, choice in choices.CHOICES[kind].items():
        assert choice.settings.keys() <= set(names())
        assert choices.choice_of(kind, name) is choice
        parameters = inspect.signature(choice.make).parameters
        for setting, default in choice.settings.items():
            parameter = parameters.get(setting)
            if parameter is not None and parameter.default is not parameter.empty:
                assert callable(parameter.default) or parameter.default == default, setting
        settings = Settings(n_sites=8, **{kind: name})
        assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
        assert settings.of(kind) == dict(choice.settings)


def test_every_optimiser_of_optax_is_built():
    found = choices.optax_names()
    assert {"adam", "adamw", "sgd", "lion", "lbfgs"} <= set(found) and len(found) > 20
    for name in found:
        optimiser = build(Settings(n_sites=4, optimiser=name)).vmc.optimiser
        assert isinstance(optimiser, optax.GradientTransformation)


def test_networks_and_samplers_are_built():
    make = lambda **values: build(Settings(n_sites=8, **values))
    vit = make(network="vit", heads=2, project=False, precision=64).network_shapes
    assert isinstance(vit, ViT) and vit.embedding.dtype == "float64"
    rbm = make(network="rbm", complex_head=True, density=2).network_shapes.network
    assert isinstance(rbm, RBM) and rbm.weight.shape == (2, 16, 8)
    symmetric = make(network="symmetric-rbm", project=False).network_shapes
    assert isinstance(symmetric, SymmetricRBM) and symmetric.weight.shape == (1, 4, 8)
    jastrow = make(network="jastrow", periodic=False, project=False).network_shapes
    assert isinstance(jastrow, Jastrow) and jastrow.coupling.shape == (1, 7)
    moved = make(token_size=2, translations=True).network_shapes
    assert isinstance(moved, SpinFlip) and isinstance(moved.network, Translations)
    assert make(site_embedding=True).network_shapes.network.embed_sites.shape == (16, 8)
    assert make(periodic=False).network_shapes.network.periodic is False
    # in a sector that the flip of all spins leaves there is nothing to project on
    sector = make(hamiltonian="heisenberg", magnetisation=2)
    assert sector.vmc.sampler.magnetisation == 2
    assert not isinstance(sector.network_shapes, SpinFlip)
    assert sector.exact_energy > make(hamiltonian="heisenberg").exact_energy
    for name, kind in [("metropolis", Metropolis), ("typewriter", Typewriter), ("auto", Sweep)]:
        assert isinstance(make(sampler=name).vmc.sampler, kind)
    assert make(by_environments=False).vmc.sampler.by_environments is False
    assert make(sampler="typewriter", interval=3).vmc.sampler.interval == 3


REFUSED = [
    ({"hamiltonian": "isng"}, "--hamiltonian must be ising, heisenberg, xxz, j1j2, pauli or module:"
     "object of your own, got isng; did you mean ising"),
    ({"hamiltonian": "os.path:"}, "--hamiltonian must be ising"),
    ({"hamiltonian": "a:b\n"}, r"--hamiltonian must be ising.*got a:b\\n"),
    ({"network": "vlt"}, "got vlt; did you mean vit"),
    ({"sampler": "gibbs"}, "--sampler must be one of sweep, auto, metropolis, typewriter, got"),
    ({"optimiser": "adm"}, "--optimiser must be spring, minsr, sr or an optimiser of optax such "
     "as adam, got adm; did you mean adam"),
    ({"optimiser": "scale_by_rprop"}, "--optimiser must be"),
    ({"j2": 0.4}, "--j2 belongs to --hamiltonian j1j2, got --hamiltonian ising"),
    ({"hamiltonian": "j1j2", "coupling": 1.0}, "--coupling belongs to --hamiltonian ising, "
     "heisenberg or xxz, got --hamiltonian j1j2"),
    ({"hamiltonian": "a:b", "field": 1.0}, "--field belongs to --hamiltonian ising, got"),
    ({"network": "vit", "mixer": "s4"}, "--mixer belongs to --network dysonnet, got --network vit"),
    ({"network": "a:b", "features": 3}, "--features belongs to --network dysonnet or vit, got"),
    ({"sampler": "metropolis", "by_environments": True}, "--by-environments belongs to --sampler"),
    ({"optimiser": "adam", "shift": 0.1}, "--shift belongs to --optimiser spring, minsr or sr"),
    ({"optimiser": "sr", "momentum": 0.5}, "--momentum belongs to --optimiser spring, got"),
    ({"momentum": 1.0}, "--momentum must be from 0 to 0.999, got 1.0"),
    ({"steps": None}, "--steps must be of type int, got None"),
]  # fmt: skip


@pytest.mark.parametrize("values, message", REFUSED, ids=[str(values) for values, _ in REFUSED])
def test_what_does_not_belong_is_refused(values, message):
    with pytest.raises(SettingsError, match=message):
        Settings(**values)


UNFIT = [
    ({"network": "vit", "n_sites": 6}, "multiple of patch=4 sites, got 6"),
    ({"network": "symmetric-rbm", "periodic": False}, "takes a ring, got an open chain; take rbm"),
    ({"network": "vit", "grow": "4:2", "steps": 9}, "ViT.resized: expected a DysonNet"),
    ({"site_embedding": True, "grow": "4:2", "steps": 9}, "leave site_embedding out"),
    ({"magnetisation": 2}, "magnetisation=2 needs moves that conserve it"),
    ({"hamiltonian": "xxz", "magnetisation": 1}, "no configuration of 8 spins has magnetisation 1"),
    ({"hamiltonian": "xxz", "sampler": "typewriter"}, "XXZ conserves the magnetisation but"),
    ({"translations": True, "periodic": False}, "--translations takes a ring, got an open chain"),
    ({"hamiltonian": "pauli"}, "--terms must be couplings with Pauli strings like '-1 ZZ, -0.5 X'"),
    ({"hamiltonian": "pauli", "terms": "-1 ZQ"}, "--terms must be couplings .* got '-1 ZQ' in"),
    ({"hamiltonian": "pauli", "terms": "1 ZZ / r^3, X"}, "got 'X' in '1 ZZ / r.3, X'"),
    ({"hamiltonian": "pauli", "terms": "1e999 ZZ"}, "--terms must be couplings"),
    ({"hamiltonian": "given"}, "--hamiltonian given stands for an object in a call of dyson.train"),
]  # fmt: skip


@pytest.mark.parametrize("values, message", UNFIT, ids=[str(values) for values, _ in UNFIT])
def test_what_does_not_fit_gives_one_sentence(values, message):
    with pytest.raises(SettingsError, match=message) as caught:
        build(Settings(**{"n_sites": 8} | values)).network_shapes  # noqa: B018  (made when asked)
    assert "\n" not in str(caught.value)


OWN = """
import equinox as eqx
import dyson

class Ladder:
    @staticmethod
    def of(n_sites):
        return dyson.J1J2(n_sites, j2=0.5)

def network(n_sites, *, key):
    return dyson.DysonNet(n_sites, features=2, periodic=False, key=key)

def broken(n_sites):
    raise KeyError("spins")

number = 3
shorter = lambda n_sites: dyson.Ising(n_sites - 1)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module in the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "own_chains.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("import no_such_module\n")
    (tmp_path / "own_wrong.py").write_text("1 +\n")
    yield
    sys.modules.pop("own_chains", None)


def test_objects_of_the_user_are_named_by_their_module(own):
    before = list(sys.path)
    settings = Settings(n_sites=6, hamiltonian="own_chains:Ladder.of", network="own_chains:network")
    problem = build(settings)
    assert sys.path == before
    assert bool(eqx.tree_equal(problem.hamiltonian, J1J2(6, j2=0.5)))
    assert problem.network_shapes.network.features == 2
    # a function of the number of sites can grow
    assert Settings(n_sites=256, hamiltonian="own_chains:Ladder.of").ladder
    assert not Settings(n_sites=256, network="own_chains:network").ladder


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "own_chain:Ladder",
            "there is no module own_chain in .*write module:object, as chains:Lad",
        ),
        ("own_broken:x", "importing own_broken failed: No module named 'no_such_module'"),
        ("own_wrong:x", "importing own_wrong failed: SyntaxError: invalid syntax"),
        ("own_chains:Lader", "there is no Lader in own_chains; did you mean Ladder"),
        ("own_chains:number", "expected a class or a function, .* got int"),
        ("own_chains:broken", r"own_chains:broken\(6\) failed: KeyError: 'spins'"),
        ("own_chains:shorter", "the Hamiltonian has 5 sites, where 6 were asked for"),
        ("json:dumps", r"json:dumps\(6\) is of type str, where a dyson Hamiltonian is expected"),
    ],
)
def test_objects_that_cannot_be_had_give_one_sentence(own, name, message):
    with pytest.raises(SettingsError, match=message) as caught:
        build(Settings(n_sites=6, hamiltonian=name))
    assert "\n" not in str(caught.value)
    if "asked for" not in message:
        assert str(caught.value).startswith(f"--hamiltonian {name}")


def test_what_is_made_has_to_be_of_its_kind():
    with pytest.raises(ValueError, match=r"--hamiltonian json:dumps\(3\) is of type str"):
        called("--hamiltonian", "json:dumps", 3, kind=Hamiltonian)


@pytest.mark.parametrize("values", [{}, {"hamiltonian": "heisenberg"}, {"network": "vit"}])
@pytest.mark.parametrize("n_sites", [8, 64, 1000])
def test_auto_says_which_way_it_takes_and_why(values, n_sites):
    settings = Settings(n_sites=n_sites, sampler="auto", **values)
    problem = problems_of(settings, build)
    sentence = engine_sentence([problem(size) for size in settings.sizes])
    last = problem(n_sites)
    distances = EXCHANGES if last.hamiltonian.conserves_magnetisation else ()
    pays = environments_pay(last.network_shapes, distances)
    assert ("by windows" in sentence) is pays
    if "network" in values:
        assert sentence.endswith("ViT has no windows")
    elif n_sites == 64:
        assert sentence == (
            "--sampler auto sweeps by forward passes on 32 sites and by windows from 64 sites on: "
            "on 64 sites a proposal by a forward pass costs 2.6e+05 multiply-adds, by a window "
            "2.1e+05"
        )
    elif n_sites == 1000:
        assert "by forward passes on 32 sites and by windows from 180 sites on: " in sentence
    assert jax.tree.leaves(last.network_shapes)  # nothing was computed for it
