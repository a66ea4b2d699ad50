"""Runs that grow through a ladder of chains: the option, and a run that stops anywhere on it."""

import json
import signal

import pytest

from commands import dyson, metrics, same_end
from dyson import checkpoint, load
from dyson.app.display import Display
from dyson.app.ranges import SettingsError
from dyson.app.settings import Settings


@pytest.mark.parametrize(
    "grow, written",
    [
        ("off", "off"),
        ("32", "32:40"),
        ("32,64", "32:40,64:10"),
        (" 32:7, 64", "32:7,64:10"),
        ("100:1,101:2,102:3", "100:1,101:2,102:3"),
    ],
)
def test_a_ladder_is_written_out(grow, written):
    settings = Settings(n_sites=128, grow=grow)
    assert settings.grow == written
    assert Settings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    "grow, message",
    [
        ("", "--grow must be auto, off, or lengths with their steps like 32:40,64:10, got ''"),
        ("32;64", "--grow must be auto, off, or lengths"),
        ("0", "--grow must be auto, off, or lengths"),
        ("32:0", "--grow must be auto, off, or lengths"),
        ("64,32", "--grow must name lengths that grow up to 128 sites, got 64,32"),
        ("128", "--grow must name lengths that grow up to 128 sites, got 128"),
        ("30", "--grow must name multiples of 4 sites, one token, got 30"),
        (
            "32:149,64:1",
            "--grow takes 150 steps with 32:149,64:1, which leaves none of 150 for 128",
        ),
    ],
)
def test_a_ladder_that_does_not_fit_is_refused(grow, message):
    with pytest.raises(SettingsError, match=message):
        Settings(n_sites=128, grow=grow, token_size=4)


def test_long_chains_grow_by_themselves():
    assert Settings(n_sites=63).ladder == ()
    assert Settings(n_sites=64, hamiltonian="heisenberg", magnetisation=40).ladder == ()
    for n_sites in (64, 100, 256, 257, 1000, 4000, 10**6):
        for steps in (5, 49, 50, 59, 60, 100, 1000):
            settings = Settings(n_sites=n_sites, steps=steps)
            assert sum(rung.steps for rung in settings.ladder) <= max(steps - 10, 0)
            assert bool(settings.ladder) is (steps >= 50)
            assert list(settings.sizes) == sorted(set(settings.sizes))
            assert all(size % 4 == 0 for size in settings.sizes[:-1])
        sizes = Settings(n_sites=n_sites, steps=1000).sizes
        assert max(b / a for a, b in zip(sizes, sizes[1:], strict=False)) <= 8.1


def test_every_step_has_its_chain():
    settings = Settings(n_sites=12, grow="4:2,6:1", steps=5)
    assert [settings.sites_at(step) for step in (0, 1, 2, 3, 4, 5, 9)] == [4, 4, 4, 6, 12, 12, 12]
    assert settings.on(12) == settings
    assert (settings.on(6).n_sites, settings.on(6).grow) == (6, "4:2")
    assert (settings.on(4).n_sites, settings.on(4).grow) == (4, "off")


CHAIN = ["--n-sites", 8, "--grow", "4:2", "--features", 3, "--hidden", 2, "--depth", 1]
RUN = [*CHAIN, "--chains", 8, "--steps", 4, "--checkpoint-every", 3, "--batches", 1]


@pytest.fixture(scope="module")
def grown(compile_once, tmp_path_factory):
    """A run through two chains that nothing disturbed."""
    directory, compiled = tmp_path_factory.mktemp("runs") / "grown", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Display, "compiling", lambda display, what: compiled.append(what))
        code, out, err = dyson("train", "-d", directory, *RUN, "--json")
    assert code == 0
    return directory, json.loads(out), err, compiled


def test_a_run_grows(grown):
    directory, result, err, compiled = grown
    assert [record["n_sites"] for record in metrics(directory)] == [4, 4, 8, 8]
    assert (result["n_sites"], result["step"]) == (8, 4)
    for number, (line, n_sites) in enumerate(zip(err.splitlines(), (4, 4, 8, 8), strict=True), 1):
        assert line.startswith(f"{number}/4  E/N ") and f"  N {n_sites}  " in line
    assert checkpoint.load_metadata(directory / "checkpoint.npz")["n_sites"] == 8
    assert load(directory).n_sites == 8
    # whoever waits sees what for
    assert compiled == [f"the {what}, {n} sites" for n in (4, 8) for what in ("sampler", "step")]


@pytest.mark.parametrize("last", [1, 2, 3])
def test_it_goes_on_from_every_step(grown, tmp_path, monkeypatch, last):
    directory, update = tmp_path / "run", Display.update

    def interrupt(display, record):
        update(display, record)
        if record["step"] == last:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Display, "update", interrupt)
        assert dyson("train", "-d", directory, *RUN)[0] == 130
    n_sites = 4 if last <= 2 else 8
    assert load(directory).n_sites == n_sites
    code, out, _ = dyson("evaluate", directory, "--batches", 1, "--json")
    assert (code, json.loads(out)["n_sites"]) == (0, n_sites)
    assert dyson("plot", directory)[0] == 0
    assert dyson("resume", directory, "--batches", 1)[0] == 0
    assert same_end(directory, grown[0])


def test_nobody_waits_for_a_longer_chain_to_compile(grown, tmp_path, monkeypatch):
    """What came before is saved."""
    directory = tmp_path / "run"

    def interrupt(display, what):
        if what == "the step, 8 sites":
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Display, "compiling", interrupt)
        code, _, err = dyson("train", "-d", directory, *RUN)
    assert code == 130
    assert err.endswith(f"dyson: interrupted; dyson resume {directory} goes on with the run\n")
    assert len(metrics(directory)) == 2 and load(directory).n_sites == 4
    assert dyson("resume", directory, "--batches", 1)[0] == 0
    assert same_end(directory, grown[0])


def test_a_run_killed_after_it_has_grown_grows_again(grown, tmp_path, monkeypatch):
    """The last checkpoint is that of the shorter chain, the metrics have gone further."""
    directory = tmp_path / "run"

    def die(display, record):
        if record["step"] == 3:
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Display, "update", die)
        with pytest.raises(RuntimeError, match="killed"):
            dyson("train", "-d", directory, *RUN, "--checkpoint-every", 2)
    assert len(metrics(directory)) == 3 and load(directory).n_sites == 4
    code, _, err = dyson("resume", directory, "--checkpoint-every", 3, "--batches", 1)
    assert code == 0, err
    assert same_end(directory, grown[0])
