"""sums.nc: what an evaluation leaves to make any score of, with intervals.

The root of the file says what the test examples are and how scores are made of sums;
each statistic is a group, with one variable for each of its sums and the dimensions
forecast, block, lead and its own.
"""

import dataclasses
import functools
import importlib
import json
import os
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from earthformer_jax import metrics
from earthformer_jax.metrics.contract import Statistic, dims_of
from earthformer_jax.metrics.verification import Score, Verification
from earthformer_jax.reports.verification.sums import BlockSums, Examples

NAME = "sums.nc"
FORMAT = 1
FORECAST, BLOCK = "forecast", "block"


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """A statistic of which only sums are left: it cannot be applied any more.

    Attributes:
        as in `metrics.contract.Statistic`.
    """

    names: tuple[str, ...]
    dtype: Any
    coords: Mapping[str, tuple] = dataclasses.field(
        default_factory=lambda: types.MappingProxyType({})
    )

    def __call__(self, forecast, batch):
        """Not possible.

        Raises:
            TypeError: always.
        """
        raise TypeError("sums that were read from a file cannot be added to")


def write(path: Path, sums: BlockSums) -> None:
    """Writes sums so that readers never see a partial file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    try:
        _root(sums).to_netcdf(unfinished, engine="netcdf4")
        for name in sums.verification.statistics:
            _group(sums, name).to_netcdf(
                unfinished, engine="netcdf4", mode="a", group=name
            )
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def opening(path: Path) -> xr.Dataset:
    """Opens what an evaluation left as NetCDF.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it is damaged, or not NetCDF.
    """
    try:
        return xr.open_dataset(path, engine="netcdf4")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read as NetCDF ({error.strerror or error}); "
            "evaluate again with --mode=evaluate"
        ) from error


def read(path: Path) -> BlockSums:
    """Reads a file that `write` wrote.

    Raises:
        OSError: if there is no file, or it cannot be read.
        ValueError: if it is another file, or of another version.
    """
    with opening(path) as root:
        if root.attrs.get("format") != FORMAT:
            raise ValueError(
                f"{path} has format={root.attrs.get('format')}: expected {FORMAT}; "
                "evaluate again with --mode=evaluate"
            )
        about = json.loads(root.attrs["examples"])
        examples = Examples(
            **about | {"shape": tuple(about["shape"])},
            sizes=root["examples_in_block"].values.astype(np.int64),
        )
        specification = json.loads(root.attrs["verification"])
        step = int(root.attrs.get("step", 0))
        names = [str(x) for x in root[FORECAST].values]
    statistics, values = {}, {name: {} for name in names}
    for key, entry in specification["statistics"].items():
        statistics[key] = _stored(entry)
        with xr.open_dataset(path, engine="netcdf4", group=key) as group:
            for part in statistics[key].names:
                array = group[part].values.astype(np.float64)
                for name, one in zip(names, array, strict=True):
                    values[name].setdefault(key, {})[part] = one
    scores = {name: _score(x) for name, x in specification["scores"].items()}
    return BlockSums(examples, Verification(statistics, scores), values, step)


def check(verification: Verification) -> None:
    """Refuses, before forecasts are made, what `write` could not keep.

    Raises:
        ValueError: for a score whose function is not one of `metrics`, or whose
            options, or the positions along an axis, are not numbers or texts.
    """
    _specification(verification)


def _root(sums: BlockSums) -> xr.Dataset:
    about = dataclasses.asdict(sums.examples)
    sizes = about.pop("sizes")
    return xr.Dataset(
        {
            "examples_in_block": (
                BLOCK,
                sizes,
                {"long_name": f"test examples in a block ({sums.examples.block})"},
            )
        },
        coords={FORECAST: list(sums.values)},
        attrs={
            "title": "Sums that scores are made of, by block of test examples",
            "source": sums.examples.description,
            "format": FORMAT,
            "examples": json.dumps(about, ensure_ascii=False),
            "verification": _specification(sums.verification),
            "step": sums.step,
        },
    )


def _specification(verification: Verification) -> str:
    """A verification as text; raises as `check`."""
    found = {
        "statistics": {n: entry_of(x) for n, x in verification.statistics.items()},
        "scores": {n: described(x) for n, x in verification.scores.items()},
    }
    return json.dumps(found, default=_plain)


def _group(sums: BlockSums, key: str) -> xr.Dataset:
    statistic = sums.verification.statistics[key]
    dims = (FORECAST, BLOCK, *dims_of(statistic))
    variables = {
        name: (dims, np.stack([x[key][name] for x in sums.values.values()]))
        for name in statistic.names
    }
    leads = {"lead": np.arange(1, sums.examples.shape[0] + 1)}
    coords = {dim: list(x) for dim, x in statistic.coords.items()}
    compressed = {name: {"zlib": True, "complevel": 1} for name in variables}
    found = xr.Dataset(variables, coords=leads | coords)
    for name, encoding in compressed.items():
        found[name].encoding = encoding
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise ValueError(f"{value!r} cannot be kept in {NAME}: expected numbers and texts")


def entry_of(statistic: Statistic) -> dict[str, Any]:
    """What is kept of a statistic in addition to its sums."""
    return {
        "names": list(statistic.names),
        "dtype": np.dtype(statistic.dtype).name,
        "dims": list(dims_of(statistic)),
        "coords": {dim: list(x) for dim, x in statistic.coords.items()},
    }


def _stored(entry: Mapping[str, Any]) -> Stored:
    return Stored(
        tuple(entry["names"]),
        np.dtype(entry["dtype"]),
        {dim: tuple(x) for dim, x in entry["coords"].items()},
    )


def described(score: Score) -> dict[str, Any]:
    """What is kept of a score: all of it, its function by name.

    Raises:
        ValueError: if the function is not one of `metrics`.
    """
    found = {x.name: getattr(score, x.name) for x in dataclasses.fields(score)}
    return found | {"function": _named(score.function)}


def _named(function: Callable) -> dict[str, Any]:
    """A function of `metrics` as its module, name and options.

    Raises:
        ValueError: for any other function.
    """
    options: dict[str, Any] = {}
    while isinstance(function, functools.partial):
        if function.args:
            raise ValueError(
                f"the score function {function} cannot be kept in {NAME}: expected all "
                "of its arguments by name"
            )
        options = function.keywords | options
        function = function.func
    start, module = f"{metrics.__name__}.", str(getattr(function, "__module__", ""))
    name = getattr(function, "__qualname__", f"{type(function).__name__}.__call__")
    if not module.startswith(start) or "." in name:
        raise ValueError(
            f"the score function {module}.{name} cannot be kept in "
            f"{NAME}: expected one of a module of {metrics.__name__}"
        )
    return {"module": module.removeprefix(start), "name": name, "options": options}


def _score(entry: Mapping[str, Any]) -> Score:
    made = entry["function"]
    try:
        module = importlib.import_module(f"{metrics.__name__}.{made['module']}")
        function = getattr(module, made["name"])
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the score function {made['module']}.{made['name']} is unknown: the file "
            "is of another version; evaluate again with --mode=evaluate"
        ) from error
    if made["options"]:
        function = functools.partial(function, **made["options"])
    tuples = {key: tuple(entry[key]) for key in ("add", "mean")}
    where = {dim: tuple(x) for dim, x in entry["where"].items()}
    return Score(**{**entry, **tuples, "where": where, "function": function})
