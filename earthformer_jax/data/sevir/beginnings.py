"""What forecasts of radar events begin from: frames of events, without targets.

Every event counts, whatever its split, and also one with missing pixels, of which the
forecast says how many were filled: `max_missing` is a rule for training. "last" is the
last frame of the newest event, which is the one that begins last; a date is the latest
frame of that date, and "all" every frame that has enough before it. All events with a
frame at that time are used. Without a path, the events are those of the test split.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from earthformer_jax.data import tfds_source
from earthformer_jax.data.augment import center_crop, check_crop
from earthformer_jax.data.forecasting.beginnings import (
    LAST,
    Beginnings,
    Starts,
    Variable,
)
from earthformer_jax.data.forecasting.encoding import Encoding
from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.times import Times
from earthformer_jax.data.sevir import catalog as catalog_lib
from earthformer_jax.data.sevir import choosing, origin, place
from earthformer_jax.data.sevir.settings import Settings
from earthformer_jax.data.sevir.windows import (
    MISSING,
    NORMALIZATIONS,
    EventSource,
    PreparedEvents,
    Windows,
    code_table,
)
from earthformer_jax.data.source import Example
from earthformer_jax.data.state import DataState

VIL = Variable("vil", "1", "", "vertically integrated liquid, code 0 to 254")


@dataclasses.dataclass(frozen=True)
class Events:
    """The events that forecasts may begin from.

    Attributes:
        source: reads them.
        names: `[n]`, for people.
        label: of the files.
        notes: what was left out, and what is filled.
        time_step: stored frames from one frame of a window to the next.
        space_step: see `Settings`.
        catalog: their rows; None if there is no catalog.
    """

    source: EventSource
    names: Sequence[str]
    label: str
    notes: tuple[str, ...]
    time_step: int
    space_step: int
    catalog: catalog_lib.Events | None = None


def find(
    settings: Settings,
    state: DataState,
    starts: Starts = LAST,
    *,
    allow_other_grid: bool = False,
) -> Beginnings:
    """The input windows that forecasts begin from, in the units of the model.

    Args:
        settings: checked settings.
        state: of the data that the model was trained on.
        starts: which windows.
        allow_other_grid: whether the fields may have another size.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if the files cannot be used, do not fit the state, or have no such
            window; the message says why.
    """
    events = _events(settings)
    moments = [events.source.times(i) for i in range(len(events.source))]
    minutes, fits, note = _steps(events, moments, state)
    frames = choosing.join(moments)
    needed = (settings.in_len - 1) * events.time_step + 1
    notes = (*events.notes, *note)
    last = choosing.choose(
        frames.take(fits[frames.event]),
        needed,
        starts,
        events.names,
        events.label,
        notes,
    )
    normalization = NORMALIZATIONS[settings.normalization]
    windows = Windows(
        events.source,
        settings.in_len,
        0,
        time_step=events.time_step,
        space_step=events.space_step,
        normalization=normalization,
        places=(last.event, last.number - (needed - 1)),
    )
    _check_size(settings, windows.size, state, events.label, allow_other_grid)
    latitude, longitude = _place(events, last.event, windows.size, settings.crop)

    filled = _Filled(windows, settings.crop)
    if len(filled) == 1 and filled[0]["filled"] == 1:
        raise ValueError(
            f"event {events.names[last.event[0]]} of {events.label} has no observed "
            f"pixel in the {settings.in_len} frames up to "
            f"{times.text(int(last.minute[0]))}"
        )

    def following(window: int, count: int) -> Times:
        step = minutes[last.event[window]]
        return times.of_minutes(last.minute[window] + step * np.arange(1, count + 1))

    low, high = normalization.encode(np.array([0, MISSING - 1], np.float32))

    def advance(
        inputs: np.ndarray, forecast: np.ndarray, minutes: np.ndarray | None
    ) -> np.ndarray:
        del minutes
        codes = np.clip(forecast, low, high).astype(inputs.dtype)
        return np.concatenate([inputs, codes])[-len(inputs) :]

    return Beginnings(
        label=events.label,
        windows=filled,
        last=last.number,
        reference=times.of_minutes(last.minute),
        following=following,
        variables=(VIL,),
        decode=normalization.decode,
        advance=advance,
        latitude=latitude,
        longitude=longitude,
        south_first=True,
        coordinates={"event": np.array([events.names[i] for i in last.event])},
        notes=notes,
    )


def encoding(settings: Settings, state: DataState) -> Encoding:
    """How codes become model units; they are the same whatever a model learned."""
    del state
    normalization = NORMALIZATIONS[settings.normalization]
    return Encoding(
        scale=np.array([normalization.scale], np.float32),
        offset=np.array([normalization.offset], np.float32),
        targets=1,
        most_carried=0,
        fill=code_table(normalization)[[MISSING]],
    )


class _Filled:
    """The middle of windows, with the share of their values that were filled."""

    def __init__(self, windows: Windows, crop: tuple[int, ...]):
        self._windows, self._crop = windows, crop

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> Example:
        example = self._windows[index]
        if self._crop:
            height, width = self._crop
            example = center_crop(example, (height, width))
        filled = 1 - np.mean(example["inputs_observed"])
        return {
            "inputs": example["inputs"],
            "filled": np.array(filled, np.float32),
            "time": example["time"],
        }


def _events(settings: Settings) -> Events:
    """The events of the files, or those of the test split where there are splits."""
    if not settings.path:
        made = origin.twin_events(settings)
    elif tfds_source.is_prepared(settings.path):
        path = Path(settings.path).expanduser()
        source = PreparedEvents(tfds_source.open_split(path, "test"))
        made = origin.Origin(
            {"test": source},
            f"SEVIR VIL prepared in {path} (test)",
            settings.time_step,
            settings.space_step,
        )
    else:
        return _of_files(settings)
    source = made.events["test"]
    return Events(
        source,
        [str(i) for i in range(len(source))],
        made.description,
        (),
        made.time_step,
        made.space_step,
    )


def _of_files(settings: Settings) -> Events:
    """The events of a catalog that have any pixels and whose files exist."""
    catalog, root = origin.find(settings)
    every = catalog_lib.read(catalog)
    seen = catalog_lib.with_pixels(every)
    if not len(seen):
        raise ValueError(f"{catalog}: none of {len(every)} events has observed pixels")
    used, left_out = catalog_lib.select(seen, math.inf, catalog)
    there, make, not_there = origin.opened(root, used, settings, span=1)
    notes = [f"left out: {text}" for text in [*left_out, *not_there]]
    if len(seen) < len(every):
        empty = len(every) - len(seen)
        notes.append(f"left out: {empty} of {len(every)} events without any pixels")
    return Events(
        make(there),
        [str(name) for name in there.id],
        str(catalog),
        tuple(notes),
        settings.time_step,
        settings.space_step,
        there,
    )


def _place(
    events: Events, which: np.ndarray, size: tuple[int, int], crop: tuple[int, ...]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Latitudes and longitudes of the pixels, if known and the same for all events."""
    if events.catalog is None:
        return None, None
    rows = events.catalog.take(np.unique(which))
    if len(np.unique(rows.corners, axis=0)) > 1 or len(set(rows.projection)) > 1:
        return None, None
    found = place.pixels(rows.projection[0], rows.corners[0], size)
    if found is None:
        return None, None
    cuts = [
        slice((n - c) // 2, (n - c) // 2 + c)
        for n, c in zip(size, crop or size, strict=True)
    ]
    if found[0].ndim == 1:
        return found[0][cuts[0]], found[1][cuts[1]]
    return found[0][*cuts], found[1][*cuts]


def _steps(
    events: Events, moments: Sequence[np.ndarray], state: DataState
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Minutes from frame to frame `[n]` of the events, which fit, and a note.

    An event with a single frame fits if the model knows frames of one kind.

    Raises:
        ValueError: if none fits.
    """
    trained = [int(minutes) for minutes in re.findall(r"\d+", state.layout.frame)]
    steps = [events.time_step * choosing.step(x) for x in moments]
    minutes = np.array([step or trained[0] for step in steps])
    fits = np.isin(steps, [*trained, *[0] * (len(trained) == 1)])
    if fits.all():
        return minutes, fits, []
    others = sorted({step for step, fit in zip(steps, fits, strict=True) if not fit})
    text = (
        f"events whose frames are {' or '.join(map(str, others))} min apart; the model "
        f"was trained on frames {state.layout.frame} apart"
    )
    if not fits.any():
        raise ValueError(f"{events.label} has only {text} (see `time_step`)")
    return minutes, fits, [f"left out: {int(np.sum(~fits))} {text}"]


def _check_size(
    settings: Settings,
    size: tuple[int, int],
    state: DataState,
    label: str,
    allow_other_grid: bool,
) -> None:
    """Rejects fields of another size than those of the training."""
    if settings.crop:
        check_crop(size, settings.crop)
    h, w = settings.crop or size
    rows, columns = state.layout.size
    if (h, w) != (rows, columns) and not allow_other_grid:
        raise ValueError(
            f"the fields of {label} have {h} x {w} pixels, those that the model was "
            f"trained on {rows} x {columns} (see `space_step` and `crop`; some models "
            "take other sizes with allow_other_grid=True)"
        )
