import json
import zipfile

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dyson import checkpoint
from dyson.checkpoint import CheckpointError


def example():
    key = jax.random.key(7)
    return {
        "layers": [eqx.nn.Linear(2, 3, key=key), jax.nn.silu, None],
        "empty": jnp.zeros((0, 4)),
        "half": jax.random.normal(key, (3,), dtype=jnp.bfloat16),
        "single": jnp.array([jnp.nan, -0.0, jnp.inf, 1e-45], dtype=jnp.float32),
        "complex": jax.random.normal(key, (2, 2), dtype=complex),
        "spins": jnp.array([1, -1], dtype=jnp.int8),
        "flags": jnp.array([True, False]),
        "host": np.arange(3, dtype=np.uint16),
        "keys": jax.random.split(key, 2),
        "other generator": jax.random.key(1, impl="rbg"),
        "numbers": (3, 0.1, 1 + 2j, True, float("inf")),
        "label": "kept from the template",
    }


def bits(tree):
    """Everything that the leaves hold, comparable without rounding or NaN trouble."""
    result = []
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            result.append((str(leaf.dtype), np.asarray(jax.random.key_data(leaf)).tobytes()))
        elif isinstance(leaf, jax.Array | np.ndarray):
            result.append((type(leaf), leaf.shape, str(leaf.dtype), np.asarray(leaf).tobytes()))
        else:
            result.append((type(leaf), leaf))
    return result


def test_everything_comes_back_bit_for_bit(tmp_path):
    tree = example()
    path = tmp_path / "state.npz"
    checkpoint.save(path, tree, {"step": 12})
    blank = jax.tree.map(
        lambda x: jnp.zeros_like(x) if isinstance(x, jax.Array) and x.dtype == float else x, tree
    )
    loaded = checkpoint.load(path, blank)
    assert jax.tree.structure(loaded) == jax.tree.structure(tree)
    assert bits(loaded) == bits(tree)
    assert checkpoint.load_metadata(path) == {"step": 12}
    assert [file.name for file in tmp_path.iterdir()] == ["state.npz"]


def test_equal_trees_give_equal_files(tmp_path, monkeypatch):
    checkpoint.save(tmp_path / "a", example())
    monkeypatch.setattr("time.time", lambda: 2e9)
    checkpoint.save(tmp_path / "b", example())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_shapes_alone_are_template_enough(tmp_path):
    def make():
        tree = example()
        return {name: tree[name] for name in ("half", "complex", "keys", "other generator")}

    checkpoint.save(tmp_path / "state.npz", make())
    template = jax.eval_shape(make)
    assert bits(checkpoint.load(tmp_path / "state.npz", template)) == bits(make())


def test_the_file_is_a_plain_npz_without_pickle(tmp_path):
    path = tmp_path / "state.npz"
    checkpoint.save(path, {"a": jnp.arange(3), "b": jnp.ones(2)})
    with np.load(path, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["leaf_00000"], np.arange(3))
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
    assert [entry["name"] for entry in manifest["leaves"]] == ["['a']", "['b']"]


@pytest.mark.parametrize(
    "template, message",
    [
        ({"a": jnp.ones(3)}, r"\['b'\] in the file is not expected"),
        ({"a": jnp.ones(3), "b": jnp.ones(2), "c": 1}, r"\['c'\] is missing from the file"),
        (
            {"a": jnp.ones(4), "b": jnp.ones(2)},
            r"float64\[3\] in the file where float64\[4\] is due",
        ),
        (
            {"a": jnp.ones(3, dtype=jnp.float32), "b": jnp.ones(2)},
            r"\['a'\] is float64\[3\] in the file where float32\[3\] is due",
        ),
        ({"a": 1.0, "b": jnp.ones(2)}, r"float64\[3\] in the file where float is due"),
        ({"a": jax.random.key(0), "b": jnp.ones(2)}, r"where key<fry>\[\] is due"),
        ([jnp.ones(3), jnp.ones(2)] * 3, "; and 4 more"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, template, message):
    path = tmp_path / "state.npz"
    checkpoint.save(path, {"a": jnp.ones(3), "b": jnp.ones(2)})
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(path, template)


def test_unreadable_files_give_one_sentence(tmp_path):
    tree = {"a": jnp.arange(1000.0)}
    missing, text, other, cut, flipped, future = (tmp_path / name for name in "abcdef")
    with pytest.raises(CheckpointError, match="cannot read .*: No such file"):
        checkpoint.load(missing, tree)
    text.write_text("not an archive")
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        checkpoint.load(text, tree)
    np.savez(other, a=np.ones(3))
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        checkpoint.load(f"{other}.npz", tree)
    checkpoint.save(cut, tree)
    data = cut.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        checkpoint.load(cut, tree)
    # One bit in the middle of the array: the checksum of the archive notices.
    middle = bytearray(data)
    middle[len(data) // 2] ^= 1
    flipped.write_bytes(bytes(middle))
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        checkpoint.load(flipped, tree)
    for manifest, message in [
        ({"format": "other"}, "is not a checkpoint of dyson"),
        ({"format": "dyson-checkpoint", "version": 99}, "version 99, this dyson reads version 1"),
    ]:
        with zipfile.ZipFile(future, "w") as archive:
            archive.writestr("manifest.json", json.dumps(manifest))
        with pytest.raises(CheckpointError, match=message):
            checkpoint.load_metadata(future)


def test_no_flipped_bit_changes_what_is_loaded(tmp_path):
    """Refused, or of no consequence (a date in the archive): 300 bits spread over the file."""
    path = tmp_path / "state.npz"
    tree = {"a": jnp.arange(5.0), "key": jax.random.key(3), "n": 3}
    checkpoint.save(path, tree, {"step": 12})
    data = path.read_bytes()
    refused = 0
    for place in range(0, 8 * len(data), 8 * len(data) // 300):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            loaded, metadata = checkpoint.load(path, tree), checkpoint.load_metadata(path)
        except CheckpointError:
            refused += 1
        else:
            assert bits(loaded) == bits(tree) and metadata == {"step": 12}
    assert refused > 150


def test_a_part_of_what_was_saved_can_be_loaded(tmp_path):
    path = tmp_path / "state.npz"
    tree = {"a": {"b": [jnp.arange(3), 4]}, "ab": jnp.ones(2)}
    checkpoint.save(path, tree)
    assert bits(checkpoint.load(path, tree["a"], within="['a']")) == bits(tree["a"])
    assert bits(checkpoint.load(path, tree["a"]["b"], within="['a']['b']")) == bits(tree["a"]["b"])
    with pytest.raises(CheckpointError, match=r"\['a'\]\['c'\] is missing from the file"):
        checkpoint.load(path, {"b": tree["a"]["b"], "c": 1}, within="['a']")
    with pytest.raises(CheckpointError, match=r"\['a'\]\['b'\]\[1\] in the file is not expected"):
        checkpoint.load(path, {"b": [jnp.arange(3)]}, within="['a']")


def test_metadata_that_could_not_be_read_again_is_not_written(tmp_path):
    with pytest.raises(ValueError):
        checkpoint.save(tmp_path / "state.npz", {}, {"energy": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "state.npz"
    checkpoint.save(path, {"a": jnp.ones(3)})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        checkpoint.save(path, {"a": jnp.zeros(3)}, {"not json": object()})
    with pytest.raises(RuntimeError), checkpoint.atomic_write(path) as file:
        file.write(b"half of it")
        raise RuntimeError
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["state.npz"]
