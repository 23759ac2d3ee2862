"""What a series of fields contains, in words."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from earthformer_jax.data.readers import series, times
from earthformer_jax.data.readers.layout import Layout
from earthformer_jax.data.readers.series import Cube

Line = tuple[str, str]  # what, text


def of_cube(cube: Cube, files: list[Path], values: np.ndarray) -> Iterator[Line]:
    """Lines about format, variables, grid, time, size and what was assumed.

    Args:
        cube: the series.
        files: its files.
        values: `[n, h, w, c]` of some of its frames; NaN where missing.
    """
    frames, height, width, _ = cube.frames.shape
    yield "format", _format(cube.format, files)
    used = "every frame" if len(values) == frames else f"{len(values)} frames"
    yield "variables", f"min, mean, max of {used}"
    longest = max(map(len, cube.names))
    for c, (name, units) in enumerate(zip(cube.names, cube.units, strict=True)):
        shown = _range(values[..., c])
        yield "", f"{name:<{longest}}  {shown}  {units or '(no units)'}"
    grid = f"{height} x {width} cells"
    grid += series.grid_text(cube.latitude, cube.longitude) or ", no coordinates"
    yield "grid", grid + _spacing(cube)
    yield "time", time_of(cube)
    pieces = len(cube.segments)
    if pieces > 1:
        lengths = cube.segments[:, 1] - cube.segments[:, 0]
        yield "", f"{pieces} pieces of {lengths.min()} to {lengths.max()} frames"
    size = 4e-9 * float(np.prod(cube.frames.shape, dtype=np.float64))
    yield "size", f"{size:.3g} GB as float32"
    for note in cube.notes:
        yield "note", note


def of_layout(layout: Layout) -> Iterator[Line]:
    """Lines about a file whose series cannot be used."""
    height, width = layout.size
    yield "format", layout.format
    pairs = zip(layout.names, layout.units, strict=True)
    yield (
        "variables",
        ", ".join(f"{name} ({unit or 'no units'})" for name, unit in pairs),
    )
    grid = series.grid_text(layout.latitude, layout.longitude)
    yield "grid", f"{height} x {width} cells{grid}"
    yield "time", f"{layout.steps} steps"


def useless(values: np.ndarray) -> str:
    """Why nothing can be learned from the values of a variable; "" if it can.

    Args:
        values: of one variable; NaN where missing.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "all missing in the frames read"
    return f"{finite[0]:g} everywhere in the frames read" if np.ptp(finite) == 0 else ""


def time_of(cube: Cube) -> str:
    """ "100 frames 2001-01-01..2001-04-10, every 1 day, no gaps" """
    frames = cube.frames.shape[0]
    if cube.minutes is None:
        return f"{frames} frames, no dates"
    if frames == 1:
        return f"1 frame {times.text(cube.minutes[0])}"
    count = len(cube.segments) - 1
    gaps = f"{count or 'no'} gap{'' if count == 1 else 's'}"
    period = times.period_text(cube.minutes)
    return f"{frames} frames {period}, every {times.frame_name(cube.cadence)}, {gaps}"


def assumptions(cube: Cube, options: dict[str, str]) -> Iterator[str]:
    """What is assumed of a series, what else it could be, and the option for it.

    Args:
        cube: the series.
        options: of the command that trains on it.
    """
    if len(cube.names) > 1:
        yield (
            "all of these variables are read and forecast; fewer: `variables`, or "
            "`targets` for those to forecast from all of them"
        )
    elif cube.format != ".npy":
        name = ", ".join(cube.names)
        yield f"{name} is the variable to forecast; another: `variables`"
    if cube.minutes is None:
        yield (
            "no dates were found: frames follow each other at equal steps; dates are "
            "read from a variable 'time' with units such as 'days since 1900-01-01'"
        )
    if "missing" in options:
        yield (
            f"{options['missing']} marks missing values; if it is a measurement, leave "
            "out `missing`"
        )
    else:
        yield (
            "all numbers are measurements unless the file declares them missing; "
            "others: `missing`"
        )
    if not all(cube.units):
        yield "numbers without units are used as they are stored"
    if "space_step" in options:
        n = options["space_step"]
        yield (
            f"{n} x {n} cells are averaged, to train in minutes; other sizes: "
            "`space_step`, or a part of the grid: `region`"
        )
    lengths = f"{options['in_len']} frames forecast {options['out_len']}"
    yield f"{lengths}; other lengths: `in_len`, `out_len`"
    if cube.minutes is None:
        yield "training, validation and test are the frames that 'data' says, in order"
    else:
        yield (
            "training, validation and test are the periods that 'data' says; others: "
            "`train_from`, `train_until`, `validate_until`, `test_from`, `test_until`"
        )


def _range(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "all missing"
    mean = finite.mean(dtype=np.float64)
    missing = 100 * (1 - finite.size / values.size)
    return (
        f"{finite.min():.5g}  {mean:.5g}  {finite.max():.5g}  {missing:.2g} % missing"
    )


def _format(name: str, files: list[Path]) -> str:
    size = sum(f.stat().st_size for f in files if f.is_file())
    return f"{name}, {size / 1e6:.3g} MB" if size else name


def _spacing(cube: Cube) -> str:
    """ ", 1.9 x 1.88 degrees" of a regular grid."""
    if (
        cube.latitude is None
        or cube.longitude is None
        or cube.latitude.ndim != 1
        or min(cube.frames.shape[1:3]) < 2
    ):
        return ""
    steps = [np.abs(np.diff(x)) for x in (cube.latitude, cube.longitude)]
    even = all(np.ptp(s) <= 0.05 * np.median(s) for s in steps)
    text = " x ".join(f"{np.median(s):.3g}" for s in steps)
    return f", {text} degrees{'' if even else ' (uneven)'}"
