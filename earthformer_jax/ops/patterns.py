"""Cuboid attention patterns by name (table 1 of the paper, and the cross patterns).

A pattern turns a grid (t, h, w) into the cuts of the consecutive attention layers of
one block.

Reference:
    Gao et al. 2022, Earthformer, table 1. https://arxiv.org/abs/2207.05833
"""

import dataclasses
import difflib
import re

from earthformer_jax import checks
from earthformer_jax.ops.cuboid import STRATEGY, CuboidSpec
from earthformer_jax.ops.resample import Grid, next_multiple
from earthformer_jax.settings import at_least


@dataclasses.dataclass(frozen=True)
class CrossSpec:
    """How a cross-attention layer cuts its queries and its memory.

    Both are cut into the same spatial windows; time is cut into `n_temporal` parts, so
    the windows of queries and memory may differ in length.

    Attributes:
        size: positions per window along (h, w).
        strategy: "l" or "d" for t, h, w.
        shift: positions by which (h, w) are rolled; a dilated axis is not rolled.
        n_temporal: parts into which time is cut.
    """

    size: tuple[int, int]
    strategy: str = "lll"
    shift: tuple[int, int] = (0, 0)
    n_temporal: int = 1

    def __post_init__(self):
        for name, least in (("size", 1), ("shift", 0)):
            entries = checks.each(at_least(least), 2)
            checks.check_value(name, getattr(self, name), entries)
        checks.check_value("strategy", self.strategy, STRATEGY)
        checks.check_value("n_temporal", self.n_temporal, at_least(1))
        object.__setattr__(self, "size", tuple(int(v) for v in self.size))
        object.__setattr__(self, "strategy", "".join(self.strategy))
        shift = tuple(
            0 if kind == "d" else int(v)
            for v, kind in zip(self.shift, self.strategy[1:], strict=True)
        )
        object.__setattr__(self, "shift", shift)

    def cuboid(self, grid: Grid) -> CuboidSpec:
        """The cut of a field with this grid; larger windows are padded."""
        time = next_multiple(grid[:1], (self.n_temporal,))[0] // self.n_temporal
        return CuboidSpec(
            (time, *self.size),
            self.strategy,
            (0, *self.shift),
            at_least=(self.n_temporal, 1, 1),
        )


def full(grid: Grid) -> tuple[CuboidSpec, ...]:
    """Each position attends to every position."""
    return (CuboidSpec(grid),)


def axial(grid: Grid) -> tuple[CuboidSpec, ...]:
    """Along time, then height, then width."""
    t, h, w = grid
    return CuboidSpec((t, 1, 1)), CuboidSpec((1, h, 1)), CuboidSpec((1, 1, w))


def divided_space_time(grid: Grid) -> tuple[CuboidSpec, ...]:
    """Along time, then over the whole plane."""
    t, h, w = grid
    return CuboidSpec((t, 1, 1)), CuboidSpec((1, h, w))


def video_swin(grid: Grid, p: int = 2, m: int = 4) -> tuple[CuboidSpec, ...]:
    """Windows of p frames and m x m points, then the same shifted by half a window."""
    t, h, w = grid
    p, m = min(p, t), min(m, h, w)
    return (
        CuboidSpec((p, m, m)),
        CuboidSpec((p, m, m), shift=(p // 2, m // 2, m // 2)),
    )


def spatial_local_global(grid: Grid, m: int = 4) -> tuple[CuboidSpec, ...]:
    """Along time, then in local windows of m x m, then in dilated windows of m x m."""
    t, h, w = grid
    if h <= m and w <= m:
        return divided_space_time(grid)
    window = (1, m, m)
    return CuboidSpec((t, 1, 1)), CuboidSpec(window), CuboidSpec(window, "ddd")


def axial_space_dilate(grid: Grid, k: int) -> tuple[CuboidSpec, ...]:
    """Along time, then dilated and local windows of 1/k of the height and width."""
    t, h, w = grid
    k = min(k, h, w)
    rows, columns = (1, h // k, 1), (1, 1, w // k)
    return (
        CuboidSpec((t, 1, 1)),
        CuboidSpec(rows, "ddd"),
        CuboidSpec(rows),
        CuboidSpec(columns, "ddd"),
        CuboidSpec(columns),
    )


def _self_patterns():
    patterns = {
        "full": full,
        "axial": axial,
        "divided_st": divided_space_time,
        "video_swin": video_swin,
        "spatial_lg_v1": spatial_local_global,
    }
    for m in (1, 2, 4, 8, 16, 32):
        patterns[f"spatial_lg_{m}"] = lambda grid, m=m: spatial_local_global(grid, m)
        for p in (1, 2, 4, 8, 10):
            patterns[f"video_swin_{p}x{m}"] = lambda grid, p=p, m=m: video_swin(
                grid, p, m
            )
    for k in (2, 4, 8):
        patterns[f"axial_space_dilate_{k}"] = lambda grid, k=k: axial_space_dilate(
            grid, k
        )
    return patterns


_SELF = _self_patterns()
_CROSS = re.compile(r"cross_(\d+)x(\d+)(_lg|_heter)?")
_CROSS_SIZES = (1, 2, 4, 8)


def self_attention_names() -> tuple[str, ...]:
    """Names that `self_attention` knows."""
    return tuple(_SELF)


def cross_attention_names() -> tuple[str, ...]:
    """Names that `cross_attention` knows."""
    return tuple(
        f"cross_{k}x{k}{kind}" for k in _CROSS_SIZES for kind in ("", "_lg", "_heter")
    )


def self_attention(name: str, grid: Grid) -> tuple[CuboidSpec, ...]:
    """The cuts of a named pattern on `grid`.

    Raises:
        ValueError: if the name is unknown; the message lists the nearest ones.
    """
    checks.check_value("grid", grid, checks.grid())
    if not isinstance(name, str) or name not in _SELF:
        raise ValueError(_unknown("self-attention", name, self_attention_names()))
    return _SELF[name](tuple(grid))


def cross_attention(name: str, grid: Grid) -> tuple[CrossSpec, ...]:
    """The windows of a named cross-attention pattern on a memory of this grid.

    `cross_KxK` is one layer of local K x K windows (no larger than the grid); `_lg`
    adds a dilated one; `_heter` adds a dilated and a shifted one.

    Raises:
        ValueError: if the name is unknown; the message lists the nearest ones.
    """
    checks.check_value("grid", grid, checks.grid())
    found = _CROSS.fullmatch(name) if isinstance(name, str) else None
    if found is None or name not in cross_attention_names():
        raise ValueError(_unknown("cross-attention", name, cross_attention_names()))
    k, _, kind = found.groups()
    k = min(int(k), *grid[1:])
    local, dilated = CrossSpec((k, k)), CrossSpec((k, k), "ddd")
    shifted = CrossSpec((k, k), shift=(k // 2, k // 2))
    kinds = {
        None: (local,),
        "_lg": (local, dilated),
        "_heter": (local, dilated, shifted),
    }
    return kinds[kind]


def _unknown(kind: str, name: str, names: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(str(name), names, n=4, cutoff=0.4) or names[:6]
    return (
        f"unknown {kind} pattern {name!r}; did you mean one of {', '.join(close)}? "
        f"({len(names)} are known: earthformer_jax.ops.patterns)"
    )
