"""The folder of compiled programs that the command keeps."""

import os

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from dyson.app import compilation


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch):
    names = ["jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"]
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    for name in ("DYSON_CACHE", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def kept_in():
    return jax.config.jax_compilation_cache_dir


def test_programs_are_kept_in_a_folder_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    compilation.keep_programs()
    assert kept_in().startswith(str(tmp_path / ".cache" / "dyson" / jax.__version__))
    assert os.path.isdir(kept_in())


@pytest.mark.parametrize(
    "name, below", [("XDG_CACHE_HOME", "caches/dyson"), ("DYSON_CACHE", "caches")]
)
def test_the_folder_can_be_chosen(monkeypatch, tmp_path, name, below):
    monkeypatch.setenv(name, str(tmp_path / "caches"))
    compilation.keep_programs()
    assert kept_in().startswith(str(tmp_path / below / jax.__version__))


def test_nothing_is_kept_where_it_is_off_or_cannot_be(monkeypatch, tmp_path):
    monkeypatch.setenv("DYSON_CACHE", "off")
    compilation.keep_programs()
    assert kept_in() is None
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DYSON_CACHE", str(tmp_path / "file" / "below"))
    compilation.keep_programs()
    assert kept_in() is None


def test_a_folder_given_to_jax_stays(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    compilation.keep_programs()
    assert kept_in() == str(tmp_path)
    # what is wrong there, its owner hears
    assert not compilation.unreadable(compilation.UNREADABLE) and tmp_path.exists()


def test_the_oldest_programs_go_first(monkeypatch, tmp_path):
    monkeypatch.setenv("DYSON_CACHE", str(tmp_path))
    monkeypatch.setattr(compilation, "MOST", 1000)
    compilation.keep_programs()
    folder = kept_in()
    for age in range(5):
        name = os.path.join(folder, str(age))
        with open(name, "wb") as file:
            file.write(bytes(300))
        os.utime(name, (1e9 - age, 1e9 - age))
    compilation.keep_programs()  # a folder is set already: nothing happens
    assert len(os.listdir(folder)) == 5
    jax.config.update("jax_compilation_cache_dir", None)
    compilation.keep_programs()
    assert sorted(os.listdir(folder)) == ["0"]


def test_a_damaged_program_is_compiled_anew_and_said_nothing_of(monkeypatch, tmp_path):
    monkeypatch.setenv("DYSON_CACHE", str(tmp_path))
    compilation.keep_programs()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()
    compute = lambda x: x * 2 + 1
    jax.jit(compute)(1.0)
    kept = [name for name in os.listdir(kept_in()) if name.endswith("-cache")]
    assert kept
    for name in kept:
        with open(os.path.join(kept_in(), name), "wb") as file:
            file.write(b"cut")
    jax.clear_caches()
    with pytest.warns(UserWarning) as caught:
        assert float(jax.jit(compute)(1.0)) == 3
    said = [str(w.message) for w in caught]
    assert all(compilation.unreadable(message) for message in said), said
    assert os.listdir(kept_in()) == []
    assert not compilation.unreadable("something else")
