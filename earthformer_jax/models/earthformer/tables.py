"""Tables of the Earthformer whose rows stand for positions, and other sizes of them.

Two kinds of parameters depend on the size of the fields: position embeddings, with one
row for each frame, row and column, and the biases of attention by relative position,
with one row for each offset within a cuboid. All others depend on channels only.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from earthformer_jax.models.earthformer.hierarchy import (
    cross_specs,
    per_level,
    self_specs,
)
from earthformer_jax.models.earthformer.model import Earthformer
from earthformer_jax.ops.attention import table_rows
from earthformer_jax.ops.resample import Grid, merged_grid

_BIAS = re.compile(
    r"(encoder/block|decoder/self|decoder/cross)_(\d+)_\d+/attention_(\d+)/"
    "relative_position_bias"
)
_PATTERNS = {
    "encoder/block": "enc_pattern",
    "decoder/self": "dec_self_pattern",
    "decoder/cross": "dec_cross_pattern",
}
_POSITION = re.compile(
    r"(encoder_position|decoder_position|decoder/position_\d+)/(time|height|width)/"
    "embedding"
)


class Fields(NamedTuple):
    """Sizes that the tables of an Earthformer are made for.

    Attributes:
        grid: (t, h, w) of the finest memory.
        frames: that the decoder makes.
    """

    grid: Grid
    frames: int


def fields_of(model: Earthformer) -> Fields:
    """The sizes of a model."""
    return Fields(model.memory_grids[0], model.target_shape[0])


def fields_of_tables(
    params: Mapping[str, np.ndarray], model: Earthformer
) -> Fields | None:
    """The sizes that parameters were trained for, as their tables say.

    Args:
        params: by path, "encoder_position/time/embedding".
        model: to be given the parameters; its plane is assumed where one table holds
            all places of the plane and has as many rows.

    Returns:
        None if they cannot be known.
    """
    rows = {
        name: len(params[f"{name}/embedding"])
        for name in (
            *(f"encoder_position/{axis}" for axis in ("time", "height", "width")),
            "encoder_position/plane",
            "decoder_position/time",
        )
        if f"{name}/embedding" in params
    }
    _, height, width = model.memory_grids[0]
    if rows.get("encoder_position/plane") != height * width:
        height, width = 0, 0
    try:
        grid = (
            rows["encoder_position/time"],
            rows.get("encoder_position/height", height),
            rows.get("encoder_position/width", width),
        )
        frames = rows["decoder_position/time"]
    except KeyError:
        return None
    return Fields(grid, frames) if min(*grid, frames) else None


def bias_reach(path: str, model: Earthformer, fields: Fields) -> Grid | None:
    """(t, h, w) of the offsets in a table of biases, in steps of its level.

    Args:
        path: of the parameter, "encoder/block_0_0/attention_1/relative_position_bias".
        model: whose patterns decide.
        fields: sizes of the fields.

    Returns:
        the reach of `ops.attention.relative_position_index`; None if the parameter is
        not such a table.
    """
    match = _BIAS.fullmatch(path)
    if match is None:
        return None
    kind, level, layer = match[1], int(match[2]), int(match[3])
    grid = fields.grid
    for _ in range(level):
        grid = merged_grid(grid, model.downsample)
    option = _PATTERNS[kind]
    pattern = per_level(getattr(model, option), model.levels, option)[level]
    if kind == "decoder/cross":
        frames = fields.grid[0] + fields.frames
        return (frames, *cross_specs(pattern, grid)[layer].size)
    return self_specs(pattern, grid)[layer].size


def resized(
    path: str, table: np.ndarray, model: Earthformer, before: Fields
) -> tuple[np.ndarray, str] | None:
    """A table for the sizes of a model, made of one for other sizes.

    Frames are counted from the present: the last input frame keeps its position
    embedding, and so does the first frame of the forecast. Frames further away than any
    before take that of the furthest. Rows and columns are interpolated linearly, as the
    fields are assumed to show the same region. A bias keeps its offset in frames and
    cells; beyond the largest offset, the bias is that of the largest.

    Args:
        path: of the parameter.
        table: `[rows, c]`.
        model: to be given the table.
        before: sizes that it was trained for.

    Returns:
        the table, and how it was made; None if it is not such a table, or not one of
        these sizes.
    """
    position = _POSITION.fullmatch(path)
    if position is not None:
        return _resized_positions(position[1], position[2], table, model)
    old, new = (bias_reach(path, model, x) for x in (before, fields_of(model)))
    if old is None or new is None or len(table) != table_rows(old):
        return None
    blocks = table.reshape(*(2 * n - 1 for n in old), -1)
    for axis, (m, n) in enumerate(zip(old, new, strict=True)):
        offsets = np.clip(np.arange(1 - n, n), 1 - m, m - 1)
        blocks = np.take(blocks, offsets + m - 1, axis=axis)
    how = f"biases of offsets within {_text(old)} to those within {_text(new)}"
    return blocks.reshape(-1, table.shape[-1]), how


def _resized_positions(
    owner: str, axis: str, table: np.ndarray, model: Earthformer
) -> tuple[np.ndarray, str]:
    here = fields_of(model)
    grid = here.grid
    if owner == "decoder_position":
        level = model.levels - 1
    else:
        level = int(owner.rpartition("_")[2]) if owner.startswith("decoder/") else 0
    for _ in range(level):
        grid = merged_grid(grid, model.downsample)
    m = len(table)
    if axis == "time" and owner == "encoder_position":
        n, rows = grid[0], np.clip(np.arange(grid[0]) + m - grid[0], 0, m - 1)
        return table[rows], f"the last input frame kept, {m} frames to {n}"
    if axis == "time":
        n = here.frames
        rows = np.clip(np.arange(n), 0, m - 1)
        return table[rows], f"the first frame kept, {m} frames to {n}"
    n = grid[("time", "height", "width").index(axis)]
    where = (np.arange(n) + 0.5) * m / n - 0.5
    columns = [np.interp(where, np.arange(m), column) for column in table.T]
    made = np.stack(columns, axis=-1).astype(table.dtype)
    return made, f"interpolated from {m} to {n}"


def _text(size: Grid) -> str:
    return " x ".join(map(str, size))
