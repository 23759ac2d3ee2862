"""A trained model as one file, `.efx`: a ZIP of JSON, NetCDF and NumPy arrays.

    metadata.json         format version, where it comes from, shapes, channels, units
    config.json           the whole config
    data.nc               the state of the data (`data.state`)
    weights/NAME.npy      parameters and batch statistics, float32
    program.stablehlo     the forecaster compiled ahead of time (optional)
    members.stablehlo     the same for members of its forecasts (optional)
    self_test/NAME.npy    inputs and the forecast that belongs to them (optional)

The last 64 bytes of the file, its ZIP comment, are the SHA-256 of all bytes before
them: a file that is damaged anywhere, or incomplete, is refused. Nothing in it is
pickled. Equal content gives equal bytes with the same versions of zlib and netCDF.
"""

import dataclasses
import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from flax import traverse_util

from earthformer_jax.data import state as data_state
from earthformer_jax.data.state import DataState
from earthformer_jax.forecast.unfinished import completed
from earthformer_jax.settings import ConfigError

SUFFIX = ".efx"
VERSION = 1
DIGEST = 64  # bytes of the hexadecimal SHA-256 at the end
METADATA, CONFIG = "metadata.json", "config.json"
PROGRAM, MEMBERS = "program.stablehlo", "members.stablehlo"
WEIGHTS, SELF_TEST = "weights/", "self_test/"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Archive:
    """What a file of a trained model holds.

    Attributes:
        config: the whole config, of plain values.
        state: what the model knows of its data.
        variables: {"params": ...}, perhaps with "batch_stats".
        metadata: human-readable facts about the model, of plain values.
        program: a serialized `jax.export.Exported`, as `forecast.program` makes it.
        members: another one for members of the forecasts.
        self_test: arrays by name: arguments of the programs, and the `forecast` and
            `members` that they give.
    """

    config: Mapping[str, Any]
    state: DataState
    variables: Mapping[str, Any]
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    program: bytes | None = None
    members: bytes | None = None
    self_test: Mapping[str, np.ndarray] | None = None


def write(path: str | os.PathLike[str], archive: Archive) -> None:
    """Writes a model into a file, completely or not at all.

    Args:
        path: of the file; its folder is created, an existing file is replaced.
        archive: the model.

    Raises:
        OSError: if it cannot be written.
    """
    metadata = {**archive.metadata, "version": VERSION}
    entries = {
        METADATA: _to_json(metadata),
        CONFIG: _to_json(archive.config),
        data_state.FILE: _to_netcdf(archive.state),
    }
    for name, values in flatten(archive.variables).items():
        entries[f"{WEIGHTS}{name}.npy"] = _to_npy(values)
    for name, program in ((PROGRAM, archive.program), (MEMBERS, archive.members)):
        if program is not None:
            entries[name] = program
    for name, values in (archive.self_test or {}).items():
        entries[f"{SELF_TEST}{name}.npy"] = _to_npy(values)
    content = _zipped(entries)
    content += hashlib.sha256(content).hexdigest().encode()
    with completed(Path(path)) as unfinished:
        unfinished.write_bytes(content)


def read(path: str | os.PathLike[str]) -> Archive:
    """Reads a file that `write` has written.

    Raises:
        FileNotFoundError: if it does not exist.
        OSError: if it cannot be read.
        ConfigError: if it is damaged, is something else, or was written by a newer
            version of the package.
    """
    content = Path(path).read_bytes()
    _check(content, path)
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    metadata = json.loads(entries[METADATA])
    if metadata["version"] > VERSION:
        raise ConfigError(
            f"{path} was written by a newer version of this package (format "
            f"{metadata['version']}, by earthformer_jax "
            f"{metadata.get('earthformer_jax', 'of an unknown version')}); this one "
            f"reads formats up to {VERSION}: install a newer version"
        )
    return Archive(
        config=json.loads(entries[CONFIG]),
        state=_from_netcdf(entries[data_state.FILE], path),
        variables={"params": {}} | unflatten(_arrays(entries, WEIGHTS)),
        metadata=metadata,
        program=entries.get(PROGRAM),
        members=entries.get(MEMBERS),
        self_test=_arrays(entries, SELF_TEST) or None,
    )


def flatten(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays by the path of their name, "params/head/kernel", sorted.

    Numbers of lower precision become float32, which every NumPy knows.
    """
    flat = traverse_util.flatten_dict(variables, sep="/")
    return {name: _plain(np.asarray(flat[name])) for name in sorted(flat)}


def unflatten(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`, apart from precision."""
    return traverse_util.unflatten_dict(arrays, sep="/")


def _check(content: bytes, path: str | os.PathLike[str]) -> None:
    """Rejects what `write` has not written, to the last byte."""
    name = METADATA.encode()
    begins = content[:4] == b"PK\3\4" and content[30 : 30 + len(name)] == name
    body, digest = content[:-DIGEST], content[-DIGEST:]
    if hashlib.sha256(body).hexdigest().encode() == digest and begins:
        return
    if begins:
        raise ConfigError(
            f"{path} is damaged or incomplete: it does not have the checksum with "
            "which it was written; copy it again"
        )
    raise ConfigError(
        f"{path} is not a file of an exported model ({SUFFIX}), or its beginning is "
        "damaged"
    )


def _zipped(entries: Mapping[str, bytes]) -> bytes:
    """A ZIP without dates; its comment, `DIGEST` bytes long, is still to be added."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in entries.items():
            info = zipfile.ZipInfo(name)  # of 1980
            info.create_system = 3  # the same on every system
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, data)
        file.comment = b"0" * DIGEST
    return buffer.getvalue()[:-DIGEST]


def _to_json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()


def _to_npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _arrays(entries: Mapping[str, bytes], folder: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(folder).removesuffix(".npy"): np.load(
            io.BytesIO(data), allow_pickle=False
        )
        for name, data in entries.items()
        if name.startswith(folder)
    }


def _plain(values: np.ndarray) -> np.ndarray:
    """Without bfloat16 and other types that need more than NumPy."""
    return values if values.dtype.kind in "biuf" else values.astype(np.float32)


def _to_netcdf(state: DataState) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        state.write(folder)
        return Path(folder, data_state.FILE).read_bytes()


def _from_netcdf(content: bytes, path: str | os.PathLike[str]) -> DataState:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, data_state.FILE)
        file.write_bytes(content)
        try:
            with xr.open_dataset(file, engine="netcdf4", decode_times=False) as dataset:
                return data_state.from_dataset(dataset.load())
        except ValueError as error:
            raise ConfigError(f"{path}: {data_state.FILE}: {error}") from error
