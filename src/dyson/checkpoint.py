"""Saving and loading pytrees of arrays, bit for bit and without pickle.

A checkpoint is one .npz file: an uncompressed zip archive with one .npy member per array and a
member `manifest.json` that names every leaf with its shape and dtype, and holds whatever JSON the
caller adds. Only data is stored, never code: loading needs a template with the same structure.
"""

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np

from dyson import processes
from dyson.devices import gathered, laid_out_like

_FORMAT = "dyson-checkpoint"
_VERSION = 1
_MANIFEST = "manifest.json"
_COMPARED = ("kind", "shape", "dtype")
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
            leaves.append(entry)
            arrays.append(array)
    manifest = {"format": _FORMAT, "version": _VERSION, "metadata": metadata, "leaves": leaves}
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # `ZipInfo` leaves the time of day out: equal states give equal files.
        archive.writestr(zipfile.ZipInfo(_MANIFEST), json.dumps(manifest))
        for index, array in enumerate(arrays):
            entry = zipfile.ZipInfo(_member(index))
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def load(path: str | os.PathLike, like: Any) -> Any:
    """Read a pytree with the structure, shapes and dtypes of `like`.

    Leaves of `like` may be arrays or `jax.ShapeDtypeStruct`s, as `equinox.filter_eval_shape`
    returns them; leaves that `save` does not store are taken from `like`. Raises `CheckpointError`
    with the differences when the file was written for something else.

    Where arrays of `like` were put on devices, or its shapes say where they belong, there go those
    of the file (`dyson.devices.placed`). Of several processes each has to call this and to find the
    file; where one raises, all do.
    """
    shapes = jax.tree.map(_without_values, like)
    return laid_out_like(processes.on_all(_read, path, shapes), like)


def _without_values(leaf: Any) -> Any:
    """What a template says of an array of jax, whose values may lie with other processes."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if isinstance(leaf, jax.Array) else leaf


def _read(path: str | os.PathLike, like: Any) -> Any:
    named, treedef = _named_leaves(like), jax.tree.structure(like)
    expected = [entry for name, leaf in named if (entry := _describe(name, leaf)[0]) is not None]
    with _open(path) as (archive, manifest):
        stored = manifest["leaves"]
        differences = _differences(expected, stored)
        if differences:
            shown = "; ".join(differences[:_MOST_DIFFERENCES_SHOWN])
            more = len(differences) - _MOST_DIFFERENCES_SHOWN
            rest = f"; and {more} more" if more > 0 else ""
            raise CheckpointError(f"{path} does not fit what it is loaded into: {shown}{rest}")
        read = {}
        for index, entry in enumerate(stored):
            with archive.open(_member(index)) as member:
                array = np.lib.format.read_array(member, allow_pickle=False)
            read[entry["name"]] = (entry, array)
    leaves = [_restore(leaf, *read[name]) if name in read else leaf for name, leaf in named]
    return jax.tree.unflatten(treedef, leaves)


def load_metadata(path: str | os.PathLike) -> Any:
    """The `metadata` given to `save`."""
    with _open(path) as (_, manifest):
        return manifest["metadata"]


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A binary file that replaces `path` in one step once it is complete and on disk.

    When the block raises, the file of that name, if any, stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # The new name itself lives in the directory, which not every system lets us synchronise.
    with contextlib.suppress(OSError):
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


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


def _restore(leaf: Any, entry: dict[str, Any], array: np.ndarray) -> Any:
    if isinstance(leaf, bool | int | float | complex):
        return type(leaf)(array[()])
    if entry["kind"] == "key":
        return jax.random.wrap_key_data(jnp.asarray(array), impl=entry["generator"])
    # Types unknown to numpy (bfloat16) come back as raw bytes.
    array = array.view(leaf.dtype) if array.dtype != leaf.dtype else array
    return array if isinstance(leaf, np.ndarray | np.generic) else jnp.asarray(array)


def _differences(expected: list[dict], stored: list[dict]) -> list[str]:
    wanted = {entry["name"]: entry for entry in expected}
    found = {entry["name"]: entry for entry in stored}
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


@contextlib.contextmanager
def _open(path: str | os.PathLike) -> Iterator[tuple[zipfile.ZipFile, dict[str, Any]]]:
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(archive.read(_MANIFEST))
            if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
                raise CheckpointError(f"{path} is not a checkpoint of dyson")
            if manifest.get("version") != _VERSION:
                raise CheckpointError(
                    f"{path} has checkpoint version {manifest.get('version')}, "
                    f"this dyson reads version {_VERSION}"
                )
            yield archive, manifest
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path} is damaged or not a checkpoint of dyson") from error
