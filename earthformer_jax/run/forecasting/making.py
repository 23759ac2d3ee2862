"""From a trained model and a series to forecasts: one way for Python and the command.

A request is answered in this order: the series is opened and fitted to the training,
everything that can be refused is refused, and only then a forecast is computed or a
file begun.
"""

import contextlib
import copy
import dataclasses
import functools
import glob
import logging
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Protocol

import jax
import jax.typing
import ml_collections
import numpy as np
import xarray as xr

from earthformer_jax import data
from earthformer_jax.data import state as data_state
from earthformer_jax.data.forecasting import given
from earthformer_jax.data.forecasting.beginnings import LAST, Beginnings, Starts
from earthformer_jax.data.readers import times
from earthformer_jax.data.state import DataState
from earthformer_jax.forecast import writing
from earthformer_jax.forecast.chunks import Chunk, Members, chunks
from earthformer_jax.forecast.outline import Outline
from earthformer_jax.models.contract import Forecaster, Tokenizer
from earthformer_jax.run import workdir
from earthformer_jax.run.command_line import as_config_error
from earthformer_jax.run.forecasting import attributes
from earthformer_jax.run.forecasting import members as members_lib
from earthformer_jax.settings import ConfigError, at_least, setting, settings_from
from earthformer_jax.training.mesh import host_bytes, size_text
from earthformer_jax.training.precision import policy

logger = logging.getLogger(__name__)

# Windows or members at once on a CPU, where more take memory and no less time.
MOST_ON_CPU = 8
Existing = Literal["refuse", "replace", "keep"]
Source = str | os.PathLike[str] | xr.Dataset
Written = Callable[[pathlib.Path, Outline], None]
Progress = Callable[[Iterable[Chunk], Outline], Iterable[Chunk]]


class Trained(attributes.Trained, Protocol):
    """What is used here of a trained model (`run.trained.TrainedModel`)."""

    @property
    def model(self) -> Forecaster: ...
    @functools.cached_property
    def target_shape(self) -> tuple[int, ...]: ...
    def __call__(self, inputs: jax.typing.ArrayLike) -> jax.Array: ...
    def ensemble(self, count: int, windows: int) -> Members: ...
    def resized(self, size: tuple[int, int]) -> "Trained": ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """Which forecasts are asked for, and in which form.

    Attributes:
        source: path, pattern or data set with the input frames; None: the files of the
            model's config.
        starts: which windows of it.
        several: forecasts are laid out by `forecast_reference_time`, even if there is
            just one.
        steps: frames of a forecast; None: as many as the model was trained on.
        members: members of a forecast; None: the one best forecast.
        anomalies: forecast departures from the climatology of the training.
        packed: values are packed into 16 bits.
        allow_other_grid: fields may have another size than in the training.
    """

    source: Source | None = None
    starts: Starts = LAST
    several: bool = False
    steps: int | None = None
    members: int | None = None
    anomalies: bool = False
    packed: bool = False
    allow_other_grid: bool = False


@dataclasses.dataclass(frozen=True)
class Forecasts:
    """Forecasts that are computed while they are read.

    Attributes:
        beginnings: what they begin from.
        outline: what is known of them before.
        chunks: their values.
    """

    beginnings: Beginnings
    outline: Outline
    chunks: Iterable[Chunk]


@dataclasses.dataclass(frozen=True)
class _Counts:
    steps: int = setting(1, at_least(1))
    members: int = setting(1, members_lib.NUMBER)


def request(
    source: Source | None = None,
    start: object = "last",
    stop: object = None,
    every: int = 1,
    *,
    several: bool = False,
    steps: int | None = None,
    members: int | None = None,
    anomalies: bool = False,
    packed: bool = False,
    allow_other_grid: bool = False,
) -> Request:
    """A checked request; dates may be texts, numbers or objects of any library.

    Raises:
        ConfigError: if an argument has a value that is not accepted, or no effect.
    """
    every, steps, members = (plain(x) for x in (every, steps, members))
    values = {"first": _date(start), "stop": _date(stop), "every": every}
    starts = settings_from(Starts, values, "a forecast")
    counts = {"steps": steps, "members": members}
    given_counts = {name: n for name, n in counts.items() if n is not None}
    settings_from(_Counts, given_counts, "a forecast")
    several = several or starts.first == "all" or bool(starts.stop)
    if every != 1 and not several:
        raise ConfigError(
            f"every={every} has no effect on a single forecast; give also "
            "start=all, or the dates start and stop"
        )
    return Request(
        source=source,
        starts=starts,
        several=several,
        steps=steps,
        members=members,
        anomalies=anomalies,
        packed=packed,
        allow_other_grid=allow_other_grid,
    )


@contextlib.contextmanager
def opened(trained: Trained, wanted: Request) -> Iterator[Forecasts]:
    """The forecasts that are asked for; their series stays open in the context.

    Raises:
        ConfigError: if they cannot be made. Nothing has been computed then.
    """
    state, count = known_state(trained), check_members(trained, wanted)
    fields, stack = trained.config.data, contextlib.ExitStack()
    own = os.path.expanduser(fields.get("path") or "")
    if wanted.source is None and own and not glob.glob(own):
        raise ConfigError(
            f"{own}, which the model was trained on, is not here; name a file with the "
            "latest frames by --input (in Python: `source`)"
        )
    with stack:
        stack.enter_context(policy.products(trained.config))
        # The path of another source is not that of the config.
        named = [x for x in fields if x != "path" or wanted.source is None]
        with as_config_error(f"data {fields.name!r}", "data", named):
            if wanted.source is not None:
                path = stack.enter_context(given.stored(wanted.source))
                fields = _with_path(fields, path)
            found = data.beginnings(
                fields,
                state,
                wanted.starts,
                allow_other_grid=wanted.allow_other_grid,
            )
        for note in found.notes:
            logger.info("%s", note)
        if wanted.allow_other_grid:
            trained = trained.resized(found.windows[0]["inputs"].shape[1:3])
        out_len = trained.target_shape[0]
        steps = wanted.steps or out_len
        with as_config_error("forecast"):
            size = _windows_at_once(trained.config, count)
            model = trained.ensemble(count, size) if count else trained
            made = chunks(model, found, steps, size, out_len=out_len)
            outline = Outline(
                found,
                steps,
                members=count,
                several=wanted.several,
                anomalies=wanted.anomalies,
                packed=wanted.packed,
                attributes=attributes.describe(trained, found, count),
            )
        yield Forecasts(found, outline, made)


def to_dataset(trained: Trained, wanted: Request) -> xr.Dataset:
    """The forecasts that are asked for, in memory.

    Raises:
        ConfigError: if they cannot be made.
    """
    with opened(trained, wanted) as forecasts, as_config_error("forecast"):
        outline = forecasts.outline
        values = math.prod(trained.target_shape[1:]) * (1 + outline.anomalies)
        values *= outline.count * max(outline.members, 1) * outline.steps
        _check_memory(values)
        return writing.to_dataset(outline, forecasts.chunks)


def write(
    trained: Trained,
    wanted: Request,
    output: str | os.PathLike[str] | None,
    folder: pathlib.Path,
    *,
    existing: Existing = "refuse",
    shown: Progress = lambda made, outline: made,
    written: Written = lambda path, outline: None,
) -> pathlib.Path | None:
    """Writes the forecasts that are asked for into a file, completely or not at all.

    Args:
        trained: the model.
        wanted: which forecasts.
        output: the file, `.nc` or `.zarr`, or an existing folder; None: in `folder`.
        folder: for files that are named after the input and its last frame.
        existing: what is done with an existing file.
        shown: shows the progress of the chunks that pass through it.
        written: called with the file when it is complete.

    Returns:
        the file; None if an existing one is kept.

    Raises:
        ConfigError: if the forecasts cannot be made, or the file exists. Nothing has
            been computed or written then.
        OSError: if it cannot be written.
    """
    if output is not None:
        output = pathlib.Path(output).expanduser()
        if output.is_dir() and output.suffix != ".zarr":
            folder, output = output, None
    if output is not None:
        _check_output(output, existing)  # known before the series is read
    with opened(trained, wanted) as forecasts:
        path = output or folder / _file_name(trained, wanted, forecasts.beginnings)
        _check_output(path, existing)
        if path.exists() and existing == "keep":
            return None
        _check_not_input(path, wanted.source or trained.config.data.get("path"))
        count, members = len(forecasts.beginnings.last), forecasts.outline.members
        logger.info(
            "%d forecast%s of %d frames%s from %s",
            count,
            "" if count == 1 else "s",
            forecasts.outline.steps,
            f" with {members} members" if members else "",
            forecasts.beginnings.label,
        )
        made = shown(forecasts.chunks, forecasts.outline)
        with as_config_error("forecast"):
            writing.write(path, forecasts.outline, made)
        written(path, forecasts.outline)
    return path


def known_state(trained: Trained) -> DataState:
    """What a model knows of its data.

    Raises:
        ConfigError: if an earlier version, which did not keep it, began its training,
            or the model makes no forecast.
    """
    if isinstance(trained.model, Tokenizer):
        raise ConfigError(
            f"model {trained.config.model.name!r} restores frames and makes no "
            "forecast; expected the workdir of a model that forecasts"
        )
    if trained.state is None:
        raise ConfigError(
            f"the model's workdir holds no {data_state.FILE} with the statistics of "
            "its training, because an earlier version began it; train again to forecast"
        )
    return trained.state


def check_members(trained: Trained, wanted: Request) -> int:
    """The number of members that are asked for; 0: the one best forecast.

    A single forecast of a model that does not draw has no members.

    Raises:
        ConfigError: if the model has fewer.
    """
    count = wanted.members or 0
    if not count:
        return 0
    members_lib.check(trained.model, count)
    return count if members_lib.has_members(trained.model) else 0


def _check_memory(values: int) -> None:
    """Refuses more numbers than memory can hold.

    Raises:
        ConfigError: with how much they need.
    """
    if 4 * values > host_bytes():
        raise ConfigError(
            f"the forecasts need {size_text(4 * values)}, but there are "
            f"{size_text(host_bytes())}; ask for fewer starts, steps or members, or "
            "write them into a file with --mode=forecast, which needs little memory"
        )


def _windows_at_once(config: ml_collections.ConfigDict, members: int) -> int:
    """Most windows at once, of which each has so many members (0: just one)."""
    size = config.eval.batch_size
    size = min(size, MOST_ON_CPU) if jax.default_backend() == "cpu" else size
    return max(size // min(max(members, 1), members_lib.SIDE_BY_SIDE), 1)


def _with_path(
    fields: ml_collections.ConfigDict, path: str | os.PathLike[str]
) -> ml_collections.ConfigDict:
    """The settings of a data set for other files.

    Raises:
        ValueError: if it is not read from files.
    """
    if "path" not in fields:
        raise ValueError("it is generated, not read from files; leave `input` out")
    fields = copy.deepcopy(fields)
    with fields.unlocked():
        fields.path = os.fspath(path)
        if "catalog_path" in fields:  # that of the files of the training
            fields.catalog_path = ""
    return fields


def plain(value: Any) -> Any:
    """A whole number of NumPy as one of Python; anything else as it is."""
    return value.item() if isinstance(value, np.integer) else value


def _date(value: object) -> str:
    """A date as `Starts` takes it, from a text, a year, or an object of any library."""
    if value is None:
        return ""
    if isinstance(value, np.datetime64):
        return str(value.astype("datetime64[m]"))
    isoformat = getattr(value, "isoformat", None)  # of datetime, pandas and cftime
    return str(value) if isoformat is None else isoformat()[:16]


def _check_output(path: pathlib.Path, existing: Existing) -> None:
    with as_config_error("forecast"):
        writing.check_path(path)
    if path.exists() and existing == "refuse":
        raise ConfigError(
            f"{path} exists; choose another --output, or replace it with --overwrite"
        )


def _check_not_input(path: pathlib.Path, source: Source | None) -> None:
    """Refuses to replace what is being read."""
    if source is None or isinstance(source, xr.Dataset) or not path.exists():
        return
    if any(path.samefile(name) for name in glob.glob(os.fspath(source))):
        raise ConfigError(f"{path} is the input; choose another --output")


def _file_name(trained: Trained, wanted: Request, found: Beginnings) -> str:
    """A name after the input, the last input frame, and the number of forecasts."""
    source = wanted.source
    name = workdir.data_name(
        trained.config, None if isinstance(source, xr.Dataset) else source
    )
    when = f"frame_{found.last[-1]}"
    if found.reference is not None:
        when = times.text(found.reference.minutes[-1])
    count = f"_{len(found.last)}" if len(found.last) > 1 else ""
    members = check_members(trained, wanted)
    drawn = f"_{members}-members" if members else ""
    return re.sub(r"[^\w.-]+", "-", f"{name}{count}_{when}{drawn}") + ".nc"
