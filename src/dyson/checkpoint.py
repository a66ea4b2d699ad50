"""Saving and loading pytrees of arrays, bit for bit and without pickle.

A checkpoint is one .npz file: an uncompressed zip archive with one .npy member per array and a
member `manifest.json` that names every leaf with its shape and dtype, and holds whatever JSON the
caller adds. Only data is stored, never code: loading needs a template with the same structure.

Loading accepts what `save` writes and nothing else: these members, stored as they are (so that no
size exceeds that of the file), each array of the shape and type that the manifest and the template
name. A flipped bit fails the checksum of its member, and the manifest repeats the checksums, so
that an archive which some other program has written anew is not taken for the one that was saved.
"""

import contextlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dyson import processes
from dyson.devices import gathered, laid_out_like
from dyson.files import atomic_write, open_file, parse_json, reason, with_check, without_check

__all__ = [
    "CheckpointError",
    "atomic_write",
    "load",
    "load_metadata",
    "load_with_metadata",
    "save",
]

_FORMAT = "dyson-checkpoint"
_VERSION = 1
_MANIFEST = "manifest.json"
_COMPARED = ("kind", "shape", "dtype")
_NUMBERS = {kind.__name__: kind for kind in (bool, int, float, complex)}
_MOST_DIFFERENCES_SHOWN = 4


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or does not fit the template. The message is one sentence."""


def save(path: str | os.PathLike, tree: Any, metadata: dict[str, Any] | None = None) -> None:
    """Write the arrays, random keys and Python numbers of a pytree to `path`.

    Other leaves (functions, strings) belong to the structure and are not stored. The file appears
    under its name only when it is complete and on disk: a crash leaves the previous one in place.
    `metadata` is anything that JSON can hold; `load_metadata` returns it.

    Of several processes the first writes, arrays that span them included; all have to call this,
    and all return when the file is there or raise when it could not be written.
    """
    processes.on_first(_write, path, gathered(tree), metadata)


def _write(path: str | os.PathLike, tree: Any, metadata: dict[str, Any] | None) -> None:
    arrays, leaves = [], []
    for name, leaf in _named_leaves(tree):
        entry, array = _describe(name, leaf)
        if entry is not None:
            leaves.append(entry | {"crc32": zlib.crc32(array.tobytes())})
            arrays.append(array)
    manifest = {"format": _FORMAT, "version": _VERSION, "metadata": metadata, "leaves": leaves}
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # `ZipInfo` leaves the time of day out: equal states give equal files.
        archive.writestr(
            zipfile.ZipInfo(_MANIFEST), json.dumps(with_check(manifest), allow_nan=False)
        )
        for index, array in enumerate(arrays):
            entry = zipfile.ZipInfo(_member(index))
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def load(path: str | os.PathLike, like: Any, *, within: str = "") -> Any:
    """Read a pytree with the structure, shapes and dtypes of `like`.

    Leaves of `like` may be arrays or `jax.ShapeDtypeStruct`s, as `equinox.filter_eval_shape`
    returns them; leaves that `save` does not store are taken from `like`. With `within`, the path
    to a part of what was saved (".model", "['a'][0]"), only that part is read. Raises
    `CheckpointError` with the differences when the file was written for something else.

    Where arrays of `like` were put on devices, or its shapes say where they belong, there go those
    of the file (`dyson.devices.placed`). Of several processes each has to call this and to find the
    file; where one raises, all do.
    """
    return load_with_metadata(path, like, within=within)[0]


def load_with_metadata(path: str | os.PathLike, like: Any, *, within: str = "") -> tuple[Any, Any]:
    """The same, and the `metadata` of the same file, where it may be replaced at any moment."""
    shapes = jax.tree.map(_without_values, like)
    tree, metadata = processes.on_all(_read, path, shapes, within)
    return laid_out_like(tree, like), metadata


def _without_values(leaf: Any) -> Any:
    """What a template says of an array of jax, whose values may lie with other processes."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if isinstance(leaf, jax.Array) else leaf


def _read(path: str | os.PathLike, like: Any, within: str) -> tuple[Any, Any]:
    named = [(within + name, leaf) for name, leaf in _named_leaves(like)]
    expected = {name: entry for name, leaf in named if (entry := _describe(name, leaf)[0])}
    due = {name: _stored_form(leaf) for name, leaf in named if name in expected}
    with _opened(path) as content:
        stored = {name: e for name, e in content.entries.items() if _is_within(name, within)}
        differences = _differences(expected, stored)
        if differences:
            shown = "; ".join(differences[:_MOST_DIFFERENCES_SHOWN])
            more = len(differences) - _MOST_DIFFERENCES_SHOWN
            rest = f"; and {more} more" if more > 0 else ""
            raise CheckpointError(f"{path} does not fit what it is loaded into: {shown}{rest}")
        arrays = {name: _array(content, name, due[name]) for name in due}
        leaves = [
            _restore(leaf, expected[name], stored[name], arrays[name]) if name in arrays else leaf
            for name, leaf in named
        ]
        metadata = content.metadata
    return jax.tree.unflatten(jax.tree.structure(like), leaves), metadata


def load_metadata(path: str | os.PathLike) -> Any:
    """The `metadata` given to `save`."""
    with _opened(path) as content:
        return content.metadata


def _member(index: int) -> str:
    return f"leaf_{index:05d}.npy"


def _named_leaves(tree: Any) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]


def _describe(name: str, leaf: Any) -> tuple[dict[str, Any] | None, Any]:
    """The manifest entry of a leaf and the array to store; nothing for leaves that hold no data."""
    if isinstance(leaf, bool | int | float | complex):
        array = np.asarray(leaf)
        return {"name": name, "kind": type(leaf).__name__, "shape": [], "dtype": None}, array
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
        return None, None
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    kind = "key" if is_key else "array"
    entry = {"name": name, "kind": kind, "shape": list(leaf.shape), "dtype": str(leaf.dtype)}
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return entry, None
    if is_key and isinstance(leaf, jax.Array):
        entry["generator"] = str(jax.random.key_impl(leaf))
        leaf = jax.random.key_data(leaf)
    return entry, np.asarray(leaf)


class _Form(NamedTuple):
    """Shape and type of an array in the file."""

    shape: tuple[int, ...]
    dtype: np.dtype


def _stored_form(leaf: Any) -> _Form:
    """The form in which a leaf of the template is due."""
    if isinstance(leaf, bool | int | float | complex):
        return _Form((), np.asarray(leaf).dtype)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = jax.eval_shape(jax.random.key_data, leaf)
        return _Form(data.shape, data.dtype)
    # Types unknown to numpy (bfloat16) are stored as raw bytes.
    described = np.lib.format.dtype_to_descr(np.dtype(leaf.dtype))
    return _Form(tuple(leaf.shape), np.lib.format.descr_to_dtype(described))


def _restore(leaf: Any, due: dict, stored: dict, array: np.ndarray) -> Any:
    if isinstance(leaf, bool | int | float | complex):
        return type(leaf)(array[()])
    if due["kind"] == "key":
        key = jax.random.wrap_key_data(jnp.asarray(array), impl=stored["generator"])
        if key.dtype != leaf.dtype:
            raise ValueError(f"a key of {key.dtype} where {leaf.dtype} is due")
        return key
    array = array.view(leaf.dtype) if array.dtype != leaf.dtype else array
    return array if isinstance(leaf, np.ndarray | np.generic) else jnp.asarray(array)


def _differences(wanted: dict[str, dict], found: dict[str, dict]) -> list[str]:
    result = [f"{name} is missing from the file" for name in wanted if name not in found]
    result += [f"{name} in the file is not expected" for name in found if name not in wanted]
    for name, entry in wanted.items():
        other = found.get(name)
        if other is not None and any(other[field] != entry[field] for field in _COMPARED):
            result.append(f"{name} is {_summary(other)} in the file where {_summary(entry)} is due")
    return result


def _summary(entry: dict[str, Any]) -> str:
    if entry["dtype"] is None:
        return entry["kind"]
    return f"{entry['dtype']}[{','.join(map(str, entry['shape']))}]"


class _Content(NamedTuple):
    """An open archive and what its manifest says, checked."""

    archive: zipfile.ZipFile
    metadata: Any
    entries: dict[str, dict[str, Any]]
    members: dict[str, str]
    """The member that holds a leaf, by its name."""


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[_Content]:
    """The content of a checkpoint; whatever goes wrong in the block is a `CheckpointError`."""
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            yield _content(path, archive)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {reason(error)}") from error
    except Exception as error:
        # What a damaged archive makes of zipfile, json and numpy has no complete list.
        raise CheckpointError(f"{path} is damaged or not a checkpoint of dyson") from error


def _content(path: str | os.PathLike, archive: zipfile.ZipFile) -> _Content:
    for member in archive.infolist():
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise ValueError("a member is not stored as it is")
    manifest = parse_json(archive.read(_MANIFEST))
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of dyson")
    version = manifest.get("version")
    if type(version) is not int or version != _VERSION:
        raise CheckpointError(
            f"{path} has checkpoint version {version!r}, this dyson reads version {_VERSION}"
        )
    manifest = without_check(manifest)
    leaves = [_entry(leaf) for leaf in manifest["leaves"]]
    members = {entry["name"]: _member(index) for index, entry in enumerate(leaves)}
    if [_MANIFEST, *members.values()] != archive.namelist():
        raise ValueError("the members are not those that the manifest names")
    return _Content(archive, manifest["metadata"], {e["name"]: e for e in leaves}, members)


def _entry(leaf: dict[str, Any]) -> dict[str, Any]:
    """A leaf of the manifest, if it has the form in which `_describe` writes it."""
    name, kind, shape, dtype = (leaf[key] for key in ("name", "kind", "shape", "dtype"))
    plain = kind in _NUMBERS and shape == [] and dtype is None
    array = kind in ("array", "key") and type(dtype) is str and type(shape) is list
    if type(name) is not str or not (plain or array):
        raise ValueError("a leaf of the manifest has not the form of one")
    if not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError("a shape does not consist of lengths")
    return leaf


def _array(content: _Content, name: str, due: _Form) -> np.ndarray:
    """The array of a leaf, which has to have the shape and type that are due."""
    data = content.archive.read(content.members[name])
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("an array is written in another version of the format")
    shape, columns_first, dtype = np.lib.format.read_array_header_1_0(stream)
    if (shape, dtype) != due:
        raise ValueError(f"{name} is {dtype}{shape} where {due.dtype}{due.shape} is due")
    values = np.frombuffer(data, dtype, offset=stream.tell())
    # The template may be a host array, which is the caller's to change.
    array = values.reshape(shape, order="F" if columns_first else "C").copy(order="C")
    if content.entries[name].get("crc32", check := zlib.crc32(array.tobytes())) != check:
        raise ValueError(f"{name} was changed after it was written")
    return array


def _is_within(name: str, part: str) -> bool:
    return name.startswith(part) and (not part or name[len(part) :][:1] in ("", ".", "["))
