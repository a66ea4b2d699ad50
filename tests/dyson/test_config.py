"""Settings from a file, overridden by options; and runs of other Hamiltonians and networks."""

import json
import math
import sys

import jax
import pytest

from commands import TINY, contents, dyson, metrics
from dyson import J1J2, exact, load
from dyson.app import new_run
from dyson.app.problem import doubt
from dyson.app.ranges import SettingsError
from dyson.app.run import RunDirectory, RunError
from dyson.app.settings import Settings, names
from dyson.networks import unprojected

pytestmark = pytest.mark.usefixtures("compile_once")

FILE = """
hamiltonian = "xxz"
anisotropy = -2
exponent = 3.0   # dipoles
n_sites = 12
kac = true
learning_rate = 0.1
"""
VALUES = {"hamiltonian": "xxz", "anisotropy": -2.0, "exponent": 3.0, "n_sites": 12, "kac": True}
VALUES |= {"learning_rate": 0.1}


@pytest.fixture
def file(tmp_path):
    (tmp_path / "run.toml").write_text(FILE)
    return tmp_path / "run.toml"


def test_a_file_says_the_same_as_options_and_options_override_it(file):
    nothing = dict.fromkeys(names())
    assert new_run.settings_from(VALUES) == new_run.settings_from(nothing, file)
    assert new_run.settings_from(nothing, file) == Settings(**VALUES)
    asked = {"kac": False, "exponent": math.inf, "steps": 3}
    assert new_run.settings_from(nothing | asked, file) == Settings(**VALUES | asked)


def test_a_run_is_a_description_too(tmp_path):
    settings = Settings(**VALUES, grow="4:3")
    run = RunDirectory.create(tmp_path / "run", settings)
    assert new_run.settings_from({}, run.path) == settings
    assert new_run.settings_from({"seed": 3}, run.path).seed == 3


@pytest.mark.parametrize(
    "text, message",
    [
        ("n_site = 3", "with .*run.toml: unknown setting n_site; did you mean n_sites?"),
        ("n-sites = 3", "with .*run.toml: unknown setting n-sites; did you mean n_sites?"),
        ("colour = 3", "with .*run.toml: unknown setting colour$"),
        ("[network]\nfeatures = 3", "--network must be of type str, got {'features': 3}"),
        ("n_sites = 1979-05-27", r"--n-sites must be of type int, got datetime.date\(1979"),
        ("n_sites = 4.0", "--n-sites must be of type int, got 4.0"),
        ("steps = nan", "--steps must be of type int, got nan"),
        ("field = nan", "--field must be a finite number, got nan"),
        ("n_sites =", "run.toml is not TOML: Invalid value"),
        ("seed = 1\nseed = 2", "run.toml is not TOML: Cannot overwrite a value"),
        ("x = " + "[" * 5000 + "]" * 5000, "run.toml is not TOML: "),
        ("seed = 1" + "0" * 5000, "run.toml is not TOML: "),
        ("j2 = 0.4", "--j2 belongs to --hamiltonian j1j2, got --hamiltonian ising"),
        ("\x00", "run.toml is not TOML: "),
    ],
)
def test_a_file_that_says_nonsense_gives_one_sentence(tmp_path, text, message):
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(SettingsError, match=message) as caught:
        new_run.settings_from({}, tmp_path / "run.toml")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_what_is_no_file_gives_one_sentence(tmp_path):
    for path, message in [("none.toml", "cannot read .*none.toml: No such"), ("", "not a run dir")]:
        with pytest.raises(RunError, match=message):
            new_run.settings_from({}, tmp_path / path)
    with pytest.raises(RunError, match="cannot read /dev/zero: Not a regular file"):
        new_run.settings_from({}, type(tmp_path)("/dev/zero"))
    (tmp_path / "large.toml").write_text("#" * 2**21)
    with pytest.raises(SettingsError, match="is not TOML: it is larger than"):
        new_run.settings_from({}, tmp_path / "large.toml")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config", "run.toml", "--coupling", "nan"], "--coupling must be a finite number"),
        (["--config", "run.toml", "--hamiltonian", "j1j2"], "--exponent belongs to --hamiltonian"),
        (["--config", "none.toml"], "cannot read none.toml: No such file"),
        (["--config", ""], "'--config': the name is empty"),
        (["--hamiltonian", "chain:Chain"], "there is no module chain in"),
        (["--sampler", "gibbs"], "--sampler must be one of sweep, auto, metropolis, typewriter"),
        (["--hamiltonian", "given"], "stands for an object in a call of dyson.train"),
        (["--network", "vit", "--n-sites", 6], "ViT: expected a multiple of patch=4 sites, got 6"),
    ],
)
def test_the_command_refuses_in_one_sentence(file, monkeypatch, arguments, message):
    monkeypatch.chdir(file.parent)
    code, out, err = dyson("train", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("dyson: ") and message in err and err.count("\n") == 1
    assert contents(file.parent) == {"run.toml": FILE.encode()}


def test_the_directory_is_named_after_the_hamiltonian(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, directory in [
        ("j1j2", "runs/j1j2-64-1"),
        ("chains:Ladder.of", "runs/Ladder.of-64-1"),
    ]:
        assert str(new_run.free_directory(Settings(hamiltonian=name))) == directory


OWN = "import dyson\nzigzag = lambda n_sites: dyson.J1J2(n_sites, j2=0.3)\n"
COMMON = ["--chains", 8, "--steps", 3, "--batches", 1, "--json"]


@pytest.fixture
def _as_users():
    """Optax promotes types."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.exhaustive
@pytest.mark.usefixtures("_as_users")
def test_a_hamiltonian_of_ones_own_a_transformer_and_adam(tmp_path, monkeypatch):
    """And the run goes on, is evaluated and loaded as any other."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "own_zigzag.py").write_text(OWN)
    (tmp_path / "run.toml").write_text('hamiltonian = "own_zigzag:zigzag"\nn_sites = 6\n')
    network = ["--network", "vit", "--patch", 2, "--heads", 1, "--features", 2, "--depth", 1]
    code, out, err = dyson(
        "train", "--config", "run.toml", *network, "--optimiser", "adam", *COMMON
    )
    assert code == 0, err
    result, directory = json.loads(out), tmp_path / "runs" / "zigzag-6-1"
    assert result["exact_energy"] == exact.ground_energy(J1J2(6, j2=0.3), magnetisation=0)
    assert len(metrics(directory)) == 3
    assert dyson("resume", directory, "--steps", 4, "--learning-rate", 0.001)[0] == 0
    assert [record["step"] for record in metrics(directory)] == [1, 2, 3, 4]
    code, _, err = dyson("resume", directory, "--steps", 5, "--shift", 0.1)
    assert (code, err) == (
        2,
        "dyson: --shift belongs to --optimiser spring, minsr or sr, got --optimiser adam\n",
    )
    assert unprojected(load(directory)).blocks[0].heads == 1
    code, _, err = dyson("evaluate", directory, "--sites", 8)
    assert code == 2 and "ViT.resized: expected a DysonNet" in err and err.count("\n") == 1


def test_signs_that_nothing_can_represent_are_warned_of():
    chain = {"hamiltonian": "j1j2", "marshall": False}
    assert doubt(Settings(**chain)).startswith("a real log ψ has no signs")
    for other in ({"complex_head": True}, {"j1": -1.0}, {"marshall": True}, {"marshall": None}):
        assert doubt(Settings(**chain | other)) is None
    assert doubt(Settings(hamiltonian="pauli", terms="1 XX")) is None
    frustrated = {"hamiltonian": "j1j2", "j2": 0.4}
    assert "take --complex-head" in (doubt(Settings(**frustrated)) or "")
    for other in ({"complex_head": True}, {"j2": -0.4}):
        assert doubt(Settings(**frustrated | other)) is None


@pytest.mark.exhaustive
def test_a_frustrated_chain_with_its_signs(tmp_path):
    chain = ["--hamiltonian", "j1j2", "--j2", 0.4, "--no-marshall", "--complex-head"]
    directory = tmp_path / "run"
    code, out, err = dyson(
        "train", "-d", directory, *TINY, *chain, "--sampler", "auto", "--steps", 12, "--json"
    )
    assert code == 0, err
    assert err.startswith("dyson: --sampler auto sweeps by forward passes on 6 sites: on 6 sites")
    result = json.loads(out)
    assert result["exact_energy"] == exact.ground_energy(
        J1J2(6, j2=0.4, marshall=False), magnetisation=0
    )
    energies = [record["energy"] for record in metrics(directory)]
    assert result["energy"] < energies[0]
    assert json.loads((directory / "config.json").read_text())["settings"]["marshall"] is False
