"""Finds the cells that a model was trained on in another grid.

They may be a part of a larger region, in another order, or means of blocks of cells of
a finer grid.
"""

import dataclasses

import numpy as np

from earthformer_jax.data.readers.frames import Cut, runs
from earthformer_jax.data.readers.series import Cube, grid_text
from earthformer_jax.data.state import Layout

GRID_TOLERANCE = 1e-4  # degrees
CELL_TOLERANCE = 0.005  # of the distance between cells, for rounded coordinates


@dataclasses.dataclass(frozen=True)
class _Axis:
    """Where the trained rows or columns are.

    Attributes:
        index: int `[n]`, numbers of all rows or columns that are used, in order.
        step: how many of them make one of the trained.
        pick: the trained one is the first of them rather than their mean.
    """

    index: np.ndarray
    step: int = 1
    pick: bool = False


def find_part(
    cube: Cube,
    layout: Layout,
    lines: list[str],
    notes: list[str],
    *,
    whole: bool = False,
) -> Cut | None:
    """The part of a series that holds the cells of a training; None: all, as it is.

    Args:
        cube: the series.
        layout: what the model was trained on.
        lines: differences are added here.
        notes: changes are added here.
        whole: whether nothing may be cut out or reordered.
    """
    size = cube.frames.shape[1:3]
    latitude, longitude = layout.latitude, layout.longitude
    if (
        latitude is None
        or longitude is None
        or cube.latitude is None
        or cube.longitude is None
    ):
        if size != layout.size:
            lines.append(_grid_line(cube, layout))
        elif layout.latitude is not None:
            notes.append(
                "the cells have no coordinates and are taken to be those of the "
                "training, in the same order"
            )
        return None
    axes = latitude, longitude, cube.latitude, cube.longitude
    if all(axis.ndim == 1 for axis in axes):
        rows = _find_axis(cube.latitude, latitude, turn=0.0)
        columns = _find_axis(cube.longitude, longitude, turn=360.0)
        found = _joined(rows, columns)
        if found is not None:
            if layout.flipped not in (None, cube.flipped):
                notes.append("latitudes run the other way than in the training")
            west = cube.longitude[found[1].index[0]]
            if abs(west - longitude[0]) > 180:
                notes.append(f"longitudes are counted from {longitude[0]:g}")
    else:
        found = _find_block(cube, layout)
    if found is None:
        lines.append(_grid_line(cube, layout))
        return None
    part = _cut(cube, *found, notes)
    if part is not None and whole:
        lines.append(_grid_line(cube, layout))
        return None
    return part


def _joined(
    rows: "list[_Axis]", columns: "list[_Axis]"
) -> "tuple[_Axis, _Axis] | None":
    """The first reading of rows and columns that treats both in the same way."""
    for row in rows:
        for column in columns:
            pieces, _ = runs(row.index)
            same = (row.step, row.pick) == (column.step, column.pick)
            if same and len(pieces) == 1:
                return row, column
    return None


def _find_axis(now: np.ndarray, trained: np.ndarray, turn: float) -> list[_Axis]:
    """The ways in which trained coordinates are those of other cells, the best first.

    Args:
        now: degrees of the cells that there are `[m]`.
        trained: degrees of the trained cells `[n]`.
        turn: degrees after which coordinates repeat; 0: never.
    """
    found = []
    index = _nearest(now, trained, turn)
    if len(trained) < 2 or len(now) < 2:
        return [] if index is None else [_Axis(index)]
    near, far = (float(np.median(np.abs(np.diff(x)))) for x in (now, trained))
    step = round(far / near) if near > 0 else 0
    if index is not None and step <= 1:
        return [_Axis(index)]
    if step < 2 or abs(far / near - step) > CELL_TOLERANCE * step:
        return []
    count = len(now) if _is_circle(now, near, turn) else len(now) - step + 1
    blocks = (np.arange(max(0, count))[:, None] + np.arange(step)) % len(now)
    degrees = now[blocks]
    if turn:
        degrees = degrees[:, :1] + _apart(degrees, degrees[:, :1], turn)
    whole = np.max(np.abs(np.diff(degrees, axis=1)), axis=1) < 1.5 * near
    blocks, degrees = blocks[whole], degrees[whole]
    firsts = None
    if len(degrees):
        firsts = _nearest(degrees.mean(axis=1), trained, turn, of=far)
    if firsts is not None:
        chosen = blocks[firsts]
        if _has_no_repeats(chosen):
            found.append(_Axis(chosen.ravel(), step))
    if index is not None:
        between = index[:-1, None] + np.sign(_step(index, len(now))) * np.arange(step)
        every = np.append(between.ravel(), index[-1]) % len(now)
        if np.array_equal(every[::step], index):
            found.append(_Axis(every, step, pick=True))
    return found


def _step(index: np.ndarray, count: int) -> int:
    """Numbers from one to the next on a circle of `count`, the short way."""
    step = int(index[1] - index[0])
    return (
        step - count
        if step > count / 2
        else step + count
        if -step > count / 2
        else step
    )


def _has_no_repeats(index: np.ndarray) -> bool:
    return len(np.unique(index)) == index.size


def _is_circle(degrees: np.ndarray, near: float, turn: float) -> bool:
    """Whether the first follows the last around the globe."""
    if not turn:
        return False
    return bool(abs(abs(_apart(degrees[0], degrees[-1], turn)) - near) < 0.1 * near)


def _nearest(
    now: np.ndarray, wanted: np.ndarray, turn: float, of: float = 0.0
) -> np.ndarray | None:
    """For every wanted coordinate the number of the same one; None if one is missing.

    Args:
        now: the coordinates that there are.
        wanted: those to find.
        turn: see `_find_axis`.
        of: distance between cells; 0: as in `wanted`.
    """
    if not of and len(wanted) > 1:
        of = float(np.median(np.abs(np.diff(wanted))))
    distance = np.abs(_apart(now[None, :], wanted[:, None], turn))
    index = np.argmin(distance, axis=1)
    least = distance[np.arange(len(wanted)), index]
    if np.max(least) > max(GRID_TOLERANCE, CELL_TOLERANCE * of):
        return None
    return index if _has_no_repeats(index) else None


def _apart(a, b, turn: float):
    """a - b, the short way around the globe."""
    apart = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return apart - turn * np.round(apart / turn) if turn else apart


def _find_block(cube: Cube, layout: Layout) -> tuple[_Axis, _Axis] | None:
    """Rows and columns of a curvilinear grid that is the trained one or holds it."""
    latitude, longitude = layout.latitude, layout.longitude
    assert latitude is not None and longitude is not None
    assert cube.latitude is not None and cube.longitude is not None
    if cube.latitude.ndim != 2 or latitude.ndim != 2:
        return None
    h, w = layout.size
    height, width = cube.latitude.shape
    for step in (1, -1):  # rows run up or down
        lat, lon = cube.latitude[::step], cube.longitude[::step]
        distance = np.abs(lat - latitude[0, 0])
        distance += np.abs(_apart(lon, longitude[0, 0], 360.0))
        i, j = np.unravel_index(int(np.argmin(distance)), distance.shape)
        part = slice(int(i), int(i) + h), slice(int(j), int(j) + w)
        if lat[part].shape != (h, w):
            continue
        apart = np.abs(lat[part] - latitude)
        apart = np.maximum(apart, np.abs(_apart(lon[part], longitude, 360.0)))
        if np.max(apart) <= GRID_TOLERANCE:
            return _Axis(np.arange(height)[::step][part[0]]), _Axis(
                np.arange(width)[part[1]]
            )
    return None


def _cut(cube: Cube, rows: _Axis, columns: _Axis, notes: list[str]) -> Cut | None:
    """What is read of every field, and notes on that."""
    height, width = cube.frames.shape[1:3]
    whole = (
        np.array_equal(rows.index, np.arange(height))
        and np.array_equal(columns.index, np.arange(width))
        and rows.step == 1
    )
    if whole:
        return None
    (rows_read,), flip = runs(rows.index)
    parts, mirror = runs(columns.index)
    step = rows.step
    if len(rows.index) < height or len(columns.index) < width:
        size = len(rows.index), len(columns.index)
        notes.append(f"{size[0]} x {size[1]} of the {height} x {width} cells are used")
    if flip:
        notes.append("rows are reversed")
    if mirror or len(parts) > 1:
        notes.append("columns are put in the order of the training")
    if step > 1 and rows.pick:
        notes.append(
            f"every {step}. row and column is used: the grid is {step} times finer and "
            "holds the trained cells"
        )
    elif step > 1:
        notes.append(f"{step} x {step} cells are averaged into one")
    return Cut(rows_read, parts, flip, step, mirror, rows.pick)


def _grid_line(cube: Cube, layout: Layout) -> str:
    """ "grid: 4 x 5 cells 10N..17.5N 30E..40E, now 3 x 5 cells ..." """
    here, there = (
        f"{h} x {w} cells{grid_text(latitude, longitude)}"
        for (h, w), latitude, longitude in (
            (layout.size, layout.latitude, layout.longitude),
            (cube.frames.shape[1:3], cube.latitude, cube.longitude),
        )
    )
    return f"grid: {here}, now {there}"
