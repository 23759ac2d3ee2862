"""A series made to fit what a model was trained on, or refused with all that differs.

What is changed: the order of variables and the spelling of their names, units, the
order of rows and columns, a region larger than the trained one, and a finer grid that
holds the trained cells. Each change is a note of the series. Fields are read later,
frame by frame.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from earthformer_jax.data.forecasting import grids
from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.frames import ConvertedFrames
from earthformer_jax.data.readers.joining import matching
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.readers.values.units import conversion
from earthformer_jax.data.state import Layout

Grid = Literal["part", "same", "any"]
CADENCE_TOLERANCE = 0.01  # of the time from frame to frame
NOT_STATED = ("", "-", "none", "unknown", "unitless")  # units that say nothing


class Misfit(ValueError):
    """A series that a trained model cannot be given.

    Attributes:
        differences: everything that differs.
    """

    def __init__(self, label: str, differences: Sequence[str]):
        super().__init__(
            f"{label} does not match the data that the model was trained on: "
            f"{'; '.join(differences)}. Use data with the same variables, grid and "
            "cadence, or another --workdir to train on these"
        )
        self.differences = tuple(differences)


def fit(cube: Cube, layout: Layout, *, grid: Grid = "part") -> Cube:
    """The series with variables, units, rows and columns of a training.

    Args:
        cube: the series; more variables and cells than needed are left out.
        layout: what the model was trained on.
        grid: "part": the series must hold the trained cells, which are cut out of it;
            "same": it must have these cells and no others, in the same order; "any":
            rows and columns are left as they are.

    Returns:
        the series, with a note on every change. A unit that it does not state is still
        "".

    Raises:
        Misfit: if it does not fit; the message names all that differs.
    """
    lines: list[str] = []
    notes: list[str] = []
    places = _places(cube, layout, lines, notes)
    changes = _conversions(cube, layout, places, lines, notes)
    cadence = _cadence(cube, layout, lines, notes)
    part = None
    if grid != "any":
        part = grids.find_part(cube, layout, lines, notes, whole=grid == "same")
    if lines:
        raise Misfit(cube.label, lines)
    names = layout.channels
    fitted = cube.channels([place for place in places if place is not None])
    frames = fitted.frames
    if part is not None:
        frames = frames.cut(part)
    converted = any(change != (1.0, 0.0) for change in changes)
    if converted:
        frames = ConvertedFrames(
            frames, [factor for factor, _ in changes], [zero for _, zero in changes]
        )
    if grid != "any" and layout.latitude is not None:
        fitted = dataclasses.replace(
            fitted, latitude=layout.latitude, longitude=layout.longitude
        )
    pairs = list(zip(layout.units, fitted.units, strict=True))
    units = tuple(a if is_stated(a) and is_stated(b) else b for a, b in pairs)
    was = tuple(
        now if change != (1.0, 0.0) else ""
        for (_, now), change in zip(pairs, changes, strict=True)
    )
    return dataclasses.replace(
        fitted,
        names=names,
        units=units,
        frames=frames,
        cadence=cadence,
        codings=() if converted else fitted.codings,
        converted_from=was if converted else (),
        notes=(*cube.notes, *notes),
    )


def is_stated(unit: str) -> bool:
    """Whether the text of a unit says anything."""
    return unit.strip().lower() not in NOT_STATED


def missing_line(
    channels: Sequence[str], there: Sequence[str], missing: Sequence[str]
) -> str:
    """ "variables: T, P, now P, Q (there is no T)" """
    without = f" (there is no {' and no '.join(missing)})" if missing else ""
    return f"variables: {', '.join(channels)}, now {', '.join(there)}{without}"


def _places(
    cube: Cube, layout: Layout, lines: list[str], notes: list[str]
) -> list[int | None]:
    """The channel of the series for every channel of the training; None: there is none.

    Differences are added to `lines`, changes to `notes`.
    """
    unknown = ("",) * len(cube.names)
    there = dict(zip(cube.names, cube.standard_names or unknown, strict=True))
    standard_names = layout.standard_names or ("",) * len(layout.channels)
    places: list[int | None] = []
    for name, standard_name in zip(layout.channels, standard_names, strict=True):
        free = {n: s for n, s in there.items() if n == name or n not in layout.channels}
        found = matching.find_alike(name, standard_name, free)
        places.append(None if found is None else cube.names.index(found))
        if found is None:
            continue
        if found != name:
            notes.append(matching.renamed_note(name, found))
        elif standard_name and there[name] and there[name] != standard_name:
            notes.append(
                f"{name!r} is {there[name]}, and was {standard_name} in the training"
            )
    known = [place for place in places if place is not None]
    missing = [
        name
        for name, place in zip(layout.channels, places, strict=True)
        if place is None
    ]
    if missing or len(set(known)) < len(known):
        lines.append(missing_line(layout.channels, cube.names, missing))
        return places
    if known != sorted(known):
        notes.append(f"variables are put in the order {', '.join(layout.channels)}")
    left = [name for i, name in enumerate(cube.names) if i not in known]
    if left:
        notes.append(f"left out, since the model does not know them: {', '.join(left)}")
    return places


def _conversions(
    cube: Cube,
    layout: Layout,
    places: Sequence[int | None],
    lines: list[str],
    notes: list[str],
) -> list[tuple[float, float]]:
    """Factor and offset from the units of the series to those of the training."""
    changes = []
    for name, unit, place in zip(layout.channels, layout.units, places, strict=True):
        change: tuple[float, float] | None = 1.0, 0.0
        if place is not None and is_stated(unit) and is_stated(cube.units[place]):
            now = cube.units[place]
            change = conversion(now, unit, difference=_is_anomaly(cube, place))
            if change is None:
                lines.append(
                    f"units of {name!r}: {unit!r}, now {now!r}, which cannot be "
                    "converted"
                )
            elif change != (1.0, 0.0):
                notes.append(f"{name!r} is converted from {now} to {unit}")
        elif place is not None and is_stated(unit):
            notes.append(f"{name!r} has no units and is taken to be in {unit}")
        changes.append(change or (1.0, 0.0))
    return changes


def _is_anomaly(cube: Cube, channel: int) -> bool:
    """Whether a variable says that its values are departures from a mean."""
    texts = [cube.names[channel]]
    texts += [x[channel] for x in (cube.standard_names, cube.long_names) if x]
    return any("anomal" in text.lower() for text in texts)


def _cadence(cube: Cube, layout: Layout, lines: list[str], notes: list[str]) -> float:
    """Minutes from frame to frame, of the training if a single frame does not tell."""
    trained = times.frame_minutes(layout.frame)
    if not trained:
        return cube.cadence
    if cube.times is None:
        notes.append(
            f"without dates, frames are taken to be {layout.frame} apart, in order"
        )
        return cube.cadence
    if not cube.cadence:
        return trained
    now = times.frame_name(cube.cadence)
    if now != layout.frame and abs(cube.cadence / trained - 1) > CADENCE_TOLERANCE:
        lines.append(f"time from frame to frame: {layout.frame}, now {now}")
    return cube.cadence
