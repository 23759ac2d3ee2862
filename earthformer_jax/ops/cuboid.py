"""Cutting a space-time grid into cuboids, and putting it back together.

Geometry is static: a `CuboidSpec` and a grid (t, h, w) are hashable Python values, so
masks are computed once, in NumPy, while a program is traced.
"""

import dataclasses
import functools

import einops
import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax import checks
from earthformer_jax.ops import resample
from earthformer_jax.ops.devices import split
from earthformer_jax.ops.dropout import Reordered
from earthformer_jax.ops.resample import Grid

STRATEGY = checks.Accepted(
    "'l' or 'd' for each of time, height and width, such as 'lll'",
    lambda value: (
        isinstance(value, str | list | tuple)
        and len(value) == 3
        and all(kind in ("l", "d") for kind in value)
    ),
)
RASTER = "thw"
ORDER = checks.Accepted(
    "the letters t, h and w in some order",
    lambda value: isinstance(value, str) and sorted(value) == sorted(RASTER),
)


@dataclasses.dataclass(frozen=True)
class CuboidSpec:
    """How one attention layer cuts its grid.

    Attributes:
        size: positions per cuboid along (t, h, w).
        strategy: for each axis, "l" (local, contiguous) or "d" (dilated, strided).
        shift: positions by which the grid is rolled before it is cut.
        at_least: minimum number of cuboids along (t, h, w); smaller grids are padded.
        order: in which cuboids are counted, the slowest axis first (see `spread`).
    """

    size: Grid
    strategy: str = "lll"
    shift: Grid = (0, 0, 0)
    at_least: Grid = (1, 1, 1)
    order: str = RASTER

    def __post_init__(self):
        for name, least in (("size", 1), ("shift", 0), ("at_least", 1)):
            value = getattr(self, name)
            checks.check_value(name, value, checks.grid(least))
            object.__setattr__(self, name, tuple(int(v) for v in value))
        checks.check_value("strategy", self.strategy, STRATEGY)
        object.__setattr__(self, "strategy", "".join(self.strategy))
        checks.check_value("order", self.order, ORDER)

    def fit(self, grid: Grid) -> "CuboidSpec":
        """The spec as it acts on `grid`.

        A cuboid that is no smaller than an axis covers the whole axis and is not
        shifted; a dilated axis is never shifted.
        """
        size, shift = list(self.size), list(self.shift)
        for axis, have in enumerate(grid):
            if self.strategy[axis] == "d":
                shift[axis] = 0
            if have <= size[axis]:
                size[axis], shift[axis] = have, 0
        return CuboidSpec(tuple(size), self.strategy, tuple(shift), order=self.order)

    def spread(self, grid: Grid, parts: int) -> "CuboidSpec":
        """The spec whose cuboids can be divided among the devices that split fields.

        Cuboids that devices share are counted slowest, so that each device has a
        sequence of them. Those of the axis that is split already are preferred: then
        no cuboid has to be moved. Where there are too few cuboids of any kind, or
        fields are not split, nothing changes.

        Args:
            grid: of the field.
            parts: among which fields are divided (`devices.split.parts`).
        """
        if parts == 1:
            return self
        t, h, w = self.counts(grid)
        shares = {"htw": h, "wth": w} if grid[1] % parts == 0 else {"wth": w, "htw": h}
        shares |= {"hwt": h * w, "thw": t}
        order = next((k for k, n in shares.items() if n % parts == 0), RASTER)
        return dataclasses.replace(self, order=order)

    def counts(self, grid: Grid) -> Grid:
        """Number of cuboids along (t, h, w)."""
        whole = zip(self.padded(grid), self.size, strict=True)
        return tuple(have // size for have, size in whole)

    def reordered(self, grid: Grid) -> Reordered | None:
        """The order of cuboids, which are axis 1; None if it is raster order."""
        counts = self.counts(grid)
        axes = tuple(RASTER.index(axis) for axis in self.order)
        moved = [axis for axis in axes if counts[axis] > 1]
        return None if moved == sorted(moved) else Reordered(1, counts, axes)

    def padded(self, grid: Grid) -> Grid:
        """The smallest grid that contains `grid` and consists of whole cuboids."""
        whole = resample.next_multiple(grid, self.size)
        wanted = (n * s for n, s in zip(self.at_least, self.size, strict=True))
        return tuple(max(g, w) for g, w in zip(whole, wanted, strict=True))

    @property
    def volume(self) -> int:
        """Positions per cuboid."""
        return int(np.prod(self.size))


def _check_spec(spec):
    if not isinstance(spec, CuboidSpec):
        raise ValueError(f"spec={checks.shown(spec)}: expected a CuboidSpec")


def _grid_pattern(strategy: str) -> str:
    """einops pattern of the grid: "l" keeps neighbours together, "d" strides."""
    axes = [
        f"(n{a} q{a})" if kind == "l" else f"(q{a} n{a})"
        for a, kind in zip("thw", strategy, strict=True)
    ]
    return f"b {' '.join(axes)} c"


def _cuboid_pattern(order: str) -> str:
    """einops pattern of the cuboids, counted in this order."""
    return f"b ({' '.join(f'n{axis}' for axis in order)}) (qt qh qw) c"


def cut(x, size: Grid, strategy: str, order: str = RASTER):
    """Cuts `[b, t, h, w, c]` into `[b, n, q, c]`; the grid is a multiple of `size`.

    Raises:
        ValueError: for another shape, or a grid that is not a multiple.
    """
    checks.check_array("x", x, "b t h w c")
    checks.check_value("size", size, checks.grid())
    checks.check_value("strategy", strategy, STRATEGY)
    if any(have % part for have, part in zip(x.shape[1:4], size, strict=True)):
        raise ValueError(
            f"x has the grid {tuple(x.shape[1:4])}: expected a multiple of "
            f"size={tuple(size)}; pad it first"
        )
    checks.check_value("order", order, ORDER)
    sizes = dict(zip(("qt", "qh", "qw"), size, strict=True))
    pattern = f"{_grid_pattern(strategy)} -> {_cuboid_pattern(order)}"
    return einops.rearrange(x, pattern, **sizes)


def uncut(x, size: Grid, strategy: str, grid: Grid, order: str = RASTER):
    """Inverse of `cut`: `[b, n, q, c]` to `[b, *grid, c]`.

    Raises:
        ValueError: if these are not the cuboids of this grid.
    """
    for name, value in (("size", size), ("grid", grid)):
        checks.check_value(name, value, checks.grid())
    checks.check_value("strategy", strategy, STRATEGY)
    checks.check_value("order", order, ORDER)
    parts = [have // part for have, part in zip(grid, size, strict=True)]
    known = dict(n=int(np.prod(parts)), q=int(np.prod(size)))
    checks.check_array("x", x, "b n q c", known)
    sizes = {f"q{a}": s for a, s in zip("thw", size, strict=True)}
    sizes |= {f"n{a}": g // s for a, g, s in zip("thw", grid, size, strict=True)}
    pattern = f"{_cuboid_pattern(order)} -> {_grid_pattern(strategy)}"
    return einops.rearrange(x, pattern, **sizes)


def decompose(
    x: jax.Array, spec: CuboidSpec, padding: str, *, time_at_front: bool = False
) -> jax.Array:
    """Pads, rolls and cuts a field into cuboids of equal volume.

    Args:
        x: `[b, t, h, w, c]` of any grid.
        spec: the cut, already clipped to the grid if desired.
        padding: "ignore", "zeros" or "nearest" (`resample.pad_grid`).
        time_at_front: pad time before the field rather than after it.

    Returns:
        `[b, n, q, c]`: n cuboids of q = prod(size) positions.

    Reference:
        Gao et al. 2022, Earthformer, equations 2 and 3.
        https://arxiv.org/abs/2207.05833
    """
    checks.check_array("x", x, "b t h w c")
    _check_spec(spec)
    x = _split_by_cuboids(x, spec)
    grid = spec.padded(x.shape[1:4])
    x = resample.pad_grid(x, grid, padding, time_at_front=time_at_front)
    if any(spec.shift):
        x = jnp.roll(x, [-s for s in spec.shift], axis=(1, 2, 3))
    cuboids = cut(x, spec.size, spec.strategy, spec.order)
    return split.split_along(cuboids, 1, uneven=True)


def _split_by_cuboids(x: jax.Array, spec: CuboidSpec) -> jax.Array:
    """A field, split along the axis whose cuboids the devices share."""
    axis = RASTER.index(spec.order[0])
    near = spec.strategy[axis] == "l" and axis
    return split.split_along(x, 1 + axis) if near else split.split_field(x)


def merge(x: jax.Array, spec: CuboidSpec, grid: Grid, padding: str) -> jax.Array:
    """Inverse of `decompose`: `[b, n, q, c]` to `[b, *grid, c]` (equation 5).

    Raises:
        ValueError: if these are not the cuboids of this grid.
    """
    _check_spec(spec)
    checks.check_value("grid", grid, checks.grid())
    resample.check_padding(padding)
    checks.check_array("x", x, "b n q c")
    x = split.split_along(x, 1, uneven=True)
    x = uncut(x, spec.size, spec.strategy, spec.padded(grid), spec.order)
    x = _split_by_cuboids(x, spec)
    if any(spec.shift):
        x = jnp.roll(x, spec.shift, axis=(1, 2, 3))
    return split.split_field(resample.unpad_grid(x, grid, padding))


@functools.lru_cache(maxsize=1024)
def validity(
    grid: Grid, spec: CuboidSpec, *, time_at_front: bool = False
) -> np.ndarray:
    """bool `[n, q]`: True where a cuboid's position holds data, not padding."""
    wanted = spec.padded(grid)
    inside = np.ones((1, *wanted, 1), bool)
    for axis, (have, want) in enumerate(zip(grid, wanted, strict=True), start=1):
        position = np.arange(want)
        real = position >= want - have if time_at_front and axis == 1 else None
        real = position < have if real is None else real
        inside &= np.expand_dims(real, [a for a in range(5) if a != axis])
    inside = np.roll(inside, [-s for s in spec.shift], axis=(1, 2, 3))
    return cut(inside, spec.size, spec.strategy, spec.order)[0, :, :, 0]


def _regions(grid: Grid, spec: CuboidSpec) -> np.ndarray:
    """int `[n, q]`: label of the unrolled neighbourhood each position comes from."""
    label = np.zeros((1, *grid, 1), np.int32)
    for axis, (g, s, shift) in enumerate(
        zip(grid, spec.size, spec.shift, strict=True), start=1
    ):
        position = np.arange(g)
        part = (position >= g - s).astype(np.int32) + (position >= g - shift)
        part = part if shift else np.zeros_like(part)
        label = 3 * label + np.expand_dims(part, [a for a in range(5) if a != axis])
    return cut(label, spec.size, spec.strategy, spec.order)[0, :, :, 0]


@functools.lru_cache(maxsize=1024)
def attention_mask(grid: Grid, spec: CuboidSpec, padding: str) -> np.ndarray | None:
    """Who may attend to whom inside each cuboid of a self-attention layer.

    Positions that are neighbours only because the grid was rolled do not see each
    other. Padded positions are masked only with "ignore": with "zeros" and "nearest"
    they take part in the softmax.

    Args:
        grid: (t, h, w) of the field before padding.
        spec: the cut, clipped to the grid.
        padding: one of `resample.PADDINGS`.

    Returns:
        bool `[n, q, s]`, or None when everything may attend to everything.
    """
    return _pair_mask(grid, spec, grid, spec, padding, memory_time_at_front=False)


@functools.lru_cache(maxsize=1024)
def cross_attention_mask(
    grid: Grid,
    spec: CuboidSpec,
    memory_grid: Grid,
    memory_spec: CuboidSpec,
    padding: str,
) -> np.ndarray | None:
    """As `attention_mask`, for queries of one grid and keys of another.

    The two cuts have the same shifts, strategies and number of cuboids. The memory is
    padded at the front in time, so that its last frames stay together.

    Returns:
        bool `[n, q, s]`, or None when everything may attend to everything.
    """
    return _pair_mask(
        grid, spec, memory_grid, memory_spec, padding, memory_time_at_front=True
    )


def _pair_mask(
    grid, spec, memory_grid, memory_spec, padding, *, memory_time_at_front
) -> np.ndarray | None:
    query = _regions(spec.padded(grid), spec)
    memory = _regions(memory_spec.padded(memory_grid), memory_spec)
    mask = query[:, :, None] == memory[:, None, :]
    if padding == "ignore":
        mask &= validity(grid, spec)[:, :, None]
        mask &= validity(memory_grid, memory_spec, time_at_front=memory_time_at_front)[
            :, None, :
        ]
    if mask.all():
        return None
    mask.setflags(write=False)
    return mask


@functools.lru_cache(maxsize=1024)
def raster_order(
    grid: Grid, spec: CuboidSpec, padding: str, *, time_at_front: bool = False
) -> np.ndarray:
    """int32 `[n, q]`: the position of the grid that each place of a cuboid holds.

    Positions are counted in the order of time, then row, then column; -1 stands for
    padding. With "nearest" padding a position may be in several places.
    """
    resample.check_padding(padding)
    inside = np.zeros((), np.int32)
    for axis, (have, want) in enumerate(zip(grid, spec.padded(grid), strict=True)):
        if padding == "nearest":
            index = resample.nearest_index(have, want)
        else:
            index = np.arange(want, dtype=np.int32)
            index = index - (want - have if time_at_front and axis == 0 else 0)
            index = np.where((index >= 0) & (index < have), index, -1)
        before = inside[..., None]
        both = (before >= 0) & (index >= 0)
        inside = np.where(both, before * np.int32(have) + index, np.int32(-1))
    rolled = np.roll(inside, [-s for s in spec.shift], axis=(0, 1, 2))
    rolled = rolled[None, ..., None]
    order = cut(rolled, spec.size, spec.strategy, spec.order)[0, :, :, 0]
    order.setflags(write=False)
    return order


@functools.lru_cache(maxsize=1024)
def places(grid: Grid, spec: CuboidSpec, padding: str) -> np.ndarray:
    """int32 `[t * h * w, 2]`: cuboid and place in it of each position, in raster order.

    The inverse of `raster_order`, for a padding that repeats nothing.

    Raises:
        ValueError: for "nearest" padding of a grid that does not consist of cuboids.
    """
    order = raster_order(grid, spec, padding)
    if padding == "nearest" and order.size != np.prod(grid):
        raise ValueError(
            f"padding='nearest' repeats positions of the grid {tuple(grid)} in cuboids "
            f"of {spec.size}: expected 'ignore' or 'zeros'"
        )
    found = np.argwhere(order >= 0)
    found = found[np.argsort(order[order >= 0])].astype(np.int32)
    found.setflags(write=False)
    return found


@functools.lru_cache(maxsize=1024)
def causal_mask(grid: Grid, spec: CuboidSpec, padding: str) -> np.ndarray | None:
    """`attention_mask` without keys that come after the query in raster order.

    The order is that of time, then row, then column of the grid before padding. Padding
    holds nothing that could be known too early: it stays as in `attention_mask`.

    Returns:
        bool `[n, q, s]`, or None when everything may attend to everything.

    Reference:
        Gao et al. 2022, Earthformer, appendix C. https://arxiv.org/abs/2207.05833
    """
    order = raster_order(grid, spec, padding)
    mask = order[:, None, :] <= order[:, :, None]
    allowed = attention_mask(grid, spec, padding)
    mask = mask if allowed is None else mask & allowed
    if mask.all():
        return None
    mask.setflags(write=False)
    return mask
