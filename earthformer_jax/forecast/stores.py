"""Where the variables of forecasts are kept: NetCDF, Zarr or memory."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import netCDF4
import numpy as np
import xarray as xr

from earthformer_jax.forecast.entries import Entry
from earthformer_jax.forecast.packing import MISSING, Packing

FILL = np.float32(netCDF4.default_fillvals["f4"])
CACHE = 2**22  # bytes per variable; by default it is more than most forecasts need
FAST = 1  # level of compression: higher ones gain little for floats


class Store(Protocol):
    """Dimensions, attributes and variables, written piece by piece."""

    def add(self, entry: Entry, chunks: tuple[int, ...], packing: Packing | None):
        """Creates a variable, with its values if it has some.

        Args:
            entry: the variable.
            chunks: sizes of the parts that are read and written together.
            packing: stores int16 numbers; None: values as they are.
        """
        ...

    def put(self, name: str, where: tuple[slice, ...], values: np.ndarray) -> None:
        """Writes a part of a variable: float32 with NaN where missing, or int16."""
        ...

    def close(self) -> None:
        """Completes what was written."""
        ...


class NetCDF:
    """A NetCDF-4 file."""

    def __init__(self, path: Path, sizes: Mapping[str, int], attributes: Mapping):
        self._path = path
        self._file = netCDF4.Dataset(os.fspath(path), "w")
        self._file.setncatts(attributes)
        for name, size in sizes.items():
            # The first is unlimited, so that other tools can append.
            self._file.createDimension(
                name, size if name != next(iter(sizes)) else None
            )

    def add(
        self, entry: Entry, chunks: tuple[int, ...], packing: Packing | None
    ) -> None:
        if entry.values is not None and np.asarray(entry.values).dtype.kind == "U":
            self._add_text(entry, np.asarray(entry.values))
            return
        kind, values, missing = _kind(entry, packing), entry.values, None
        options: dict[str, Any] = {}
        if values is None:
            missing = FILL if packing is None else MISSING
            options = {"fill_value": missing, "zlib": bool(entry.dims)}
        if entry.dims:
            options |= {"complevel": FAST, "chunksizes": chunks}
        variable = self._file.createVariable(entry.name, kind, entry.dims, **options)
        if entry.dims:
            variable.set_var_chunk_cache(size=CACHE)
        variable.set_auto_maskandscale(False)
        variable.setncatts(_attributes(entry, packing))
        if values is not None:
            variable[...] = values

    def _add_text(self, entry: Entry, texts: np.ndarray) -> None:
        """Writes characters: many programs do not know the type of strings."""
        dims = (*entry.dims, f"{entry.name}_length")
        encoded = np.array(np.strings.encode(texts, "utf-8"))
        encoded = encoded.reshape(*texts.shape, 1).view("S1")
        self._file.createDimension(dims[-1], encoded.shape[-1])
        variable = self._file.createVariable(entry.name, "S1", dims)
        variable.setncatts({**entry.attributes, "_Encoding": "utf-8"})
        variable.set_auto_chartostring(False)
        variable[:] = encoded

    def put(self, name: str, where: tuple[slice, ...], values: np.ndarray) -> None:
        if values.dtype.kind == "f":
            values = np.where(np.isnan(values), FILL, values)
        self._file[name][where or ...] = values

    def close(self) -> None:
        if self._file.isopen():
            self._file.close()


class Zarr:
    """A Zarr store, format 2, with consolidated metadata."""

    def __init__(self, path: Path, sizes: Mapping[str, int], attributes: Mapping):
        import zarr  # takes half a second, and only this format needs it

        self._sizes, self._zarr = sizes, zarr
        self._arrays: dict[str, zarr.Array] = {}
        self._group = zarr.create_group(
            os.fspath(path), attributes=dict(attributes), zarr_format=2
        )

    def add(
        self, entry: Entry, chunks: tuple[int, ...], packing: Packing | None
    ) -> None:
        kind, values = _kind(entry, packing), entry.values
        shape = tuple(self._sizes[name] for name in entry.dims)
        missing = None
        if values is None:
            missing = np.float32(np.nan) if packing is None else MISSING
        array = self._group.create_array(
            entry.name,
            shape=shape,
            dtype=kind,
            chunks=chunks if values is None and shape else shape,
            fill_value=missing,
            attributes={
                "_ARRAY_DIMENSIONS": list(entry.dims),
                **_attributes(entry, packing),
            },
        )
        if values is not None:
            array[...] = values
        self._arrays[entry.name] = array

    def put(self, name: str, where: tuple[slice, ...], values: np.ndarray) -> None:
        self._arrays[name][where or ...] = values

    def close(self) -> None:
        self._zarr.consolidate_metadata(self._group.store, zarr_format=2)


class Memory:
    """Arrays of a data set."""

    def __init__(self, sizes: Mapping[str, int], attributes: Mapping):
        self._sizes, self._attributes = sizes, attributes
        self._variables: dict[str, xr.Variable] = {}

    def add(
        self, entry: Entry, chunks: tuple[int, ...], packing: Packing | None
    ) -> None:
        values = entry.values
        if values is None:
            shape = [self._sizes[name] for name in entry.dims]
            values = np.full(shape, np.nan, np.float32)
        attributes = _attributes(entry, None)
        self._variables[entry.name] = xr.Variable(entry.dims, values, attributes)

    def put(self, name: str, where: tuple[slice, ...], values: np.ndarray) -> None:
        self._variables[name].values[where or ...] = values

    def close(self) -> None:
        pass

    def dataset(self) -> xr.Dataset:
        """What xarray makes of a file with the same variables."""
        whole = xr.Dataset(self._variables, attrs=dict(self._attributes))
        with warnings.catch_warnings():  # years such as 1 become cftime dates
            warnings.simplefilter("ignore", xr.SerializationWarning)
            return xr.decode_cf(whole, decode_timedelta=False).load()


def _kind(entry: Entry, packing: Packing | None):
    """The type of the values that are stored."""
    if isinstance(entry.values, str):
        return str
    if entry.values is not None:
        return np.asarray(entry.values).dtype
    return np.dtype(np.float32 if packing is None else np.int16)


def _attributes(entry: Entry, packing: Packing | None) -> dict[str, Any]:
    attributes: dict[str, Any] = dict(entry.attributes)
    if packing is not None:
        attributes |= {"scale_factor": packing.scale, "add_offset": packing.offset}
    return attributes
