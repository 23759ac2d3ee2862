"""Fields that a user gives in memory, as a file that the readers of the package open.

There is one reader of dates, missing values, units and grids, and it reads files. So
values of `xarray` are written to a temporary one, as they are in memory: packing is
undone.
"""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray as xr

from earthformer_jax.data.readers.layout import MIN_DIMENSIONS, NUMBERS

FILE = "dataset.nc"
PIECE_BYTES = 2**26  # of a variable that are in memory at a time
# What the encoding of a variable says about others, rather than about its own numbers.
RELATED = ("coordinates", "bounds", "grid_mapping", "cell_measures", "calendar")
# Attributes that are numbers of the packed type, if the values were packed.
RANGES = ("valid_range", "valid_min", "valid_max")

Source = str | os.PathLike[str] | xr.Dataset | xr.DataArray


@contextlib.contextmanager
def stored(source: Source) -> Iterator[str]:
    """The path of a source for the readers: its own, or of a temporary NetCDF file.

    Args:
        source: a path or pattern; or fields with their coordinates, whose values are
            written in pieces, so that they need not fit into memory.

    Yields:
        the path or pattern. A temporary file is deleted afterwards.

    Raises:
        TypeError: if it is something else.
        ValueError: if NetCDF cannot hold it.
    """
    if isinstance(source, str | os.PathLike):
        yield os.fspath(source)
        return
    if isinstance(source, xr.DataArray):
        name = source.name if source.name is not None else "value"
        if name in source.coords:  # xarray refuses a variable that dates itself
            raise ValueError(f"the array {name!r} is one of its own coordinates")
        source = source.to_dataset(name=name)
    if not isinstance(source, xr.Dataset):
        raise TypeError(
            "expected a path, a pattern, an xarray.Dataset or an xarray.DataArray; got "
            f"{type(source).__module__}.{type(source).__qualname__}"
        )
    with tempfile.TemporaryDirectory(prefix="earthformer_") as folder:
        path = Path(folder, FILE)
        try:
            _write(source, path)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise ValueError(
                f"the data set cannot be written as NetCDF, to be read like a file: "
                f"{error}"
            ) from error
        yield str(path)


def _write(dataset: xr.Dataset, path: Path) -> None:
    """Writes coordinates and small variables with xarray, and fields in pieces."""
    fields = [
        name
        for name, array in dataset.data_vars.items()
        if array.ndim >= MIN_DIMENSIONS and array.dtype.kind in NUMBERS
    ]
    rest = dataset.drop_vars(fields)
    coordinates = {name: _unpacked(rest[name].variable) for name in rest.coords}
    others = {name: _unpacked(array.variable) for name, array in rest.items()}
    rest = xr.Dataset(others, coordinates, _plain(dataset.attrs))
    with warnings.catch_warnings():  # bounds may have units of their own here
        warnings.filterwarnings("ignore", ".* has datetime type and a bounds variable")
        rest.to_netcdf(path, engine="netcdf4", format="NETCDF4")
    with netCDF4.Dataset(path, "a") as file:
        for name in fields:
            if "/" in str(name):  # it would make a group
                raise ValueError(f"the name {name!r} has a '/'")
            _write_field(file, str(name), dataset[name])


def _unpacked(variable: xr.Variable) -> xr.Variable:
    """A variable in memory, without what its encoding says about its own numbers."""
    values = variable.values
    related = {k: v for k, v in variable.encoding.items() if k in RELATED}
    if values.dtype == np.float16:  # NetCDF has no such type
        values = values.astype(np.float32)
    return xr.Variable(variable.dims, values, _attributes(variable), related)


def _write_field(file: netCDF4.Dataset, name: str, array: xr.DataArray) -> None:
    for dim, size in array.sizes.items():
        if dim not in file.dimensions:
            file.createDimension(str(dim), size)
    kind = np.dtype(array.dtype)
    if kind.kind == "b":
        kind = np.dtype("i1")
    elif kind.kind == "f":
        kind = np.dtype("f8" if kind.itemsize > 4 else "f4")
    fill = np.nan if kind.kind == "f" else None
    variable = file.createVariable(
        name, kind.newbyteorder("="), tuple(map(str, array.dims)), fill_value=fill
    )
    variable.set_auto_maskandscale(False)
    beside = [str(n) for n in array.coords if n not in array.dims]
    attributes = _attributes(array.variable)
    if beside:
        attributes.setdefault("coordinates", " ".join(beside))
    variable.setncatts(attributes)
    step = max(1, PIECE_BYTES * array.shape[0] // max(1, array.size * kind.itemsize))
    for start in range(0, array.shape[0], step):
        piece = array.variable[start : start + step]
        variable[start : start + step] = np.asarray(piece.values).astype(kind)


def _attributes(variable: xr.Variable) -> dict[str, Any]:
    """Attributes for values that are no longer packed."""
    encoding = variable.encoding
    scale, offset = (
        float(encoding.get(name, neutral))
        for name, neutral in (("scale_factor", 1.0), ("add_offset", 0.0))
    )
    attributes = _plain(variable.attrs)
    for name in RANGES:
        if name in attributes and (scale, offset) != (1.0, 0.0):
            attributes[name] = np.asarray(attributes[name]) * scale + offset
    return attributes


def _plain(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes that NetCDF can hold; others as text."""

    def plain(value):
        if isinstance(value, str | bytes):
            return value
        array = np.asarray(value)
        if array.dtype.kind == "b":
            return array.astype(np.int8)
        held = array.dtype.kind in NUMBERS and array.ndim <= 1
        words = array.dtype.kind == "U" and array.ndim == 1
        return value if held else list(map(str, value)) if words else str(value)

    return {str(k): plain(v) for k, v in attributes.items() if v is not None}
