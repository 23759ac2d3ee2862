"""Softmax attention of many small cuboids in kernels of its own, for GPUs.

A program of a kernel computes the attention of one cuboid and head without writing
scores or weights to memory. Where a cuboid's queries and keys fit one block each, the
whole gradient is one kernel too; it keeps no more than the result and the logarithm of
the softmax's denominator. Longer cuboids are cut into blocks of queries and of keys.

The kernels are written in Pallas and compiled by Triton, whose blocks have sides that
are powers of two, of at least 16 in products. Everything beyond the ends of an array
is read as zero and never written.

JAX 0.12 still compiles Pallas by Triton, but says that a later version will not.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from earthformer_jax.ops.dropout import threshold
from earthformer_jax.ops.hashed_key import hashed_bits

MAX_WIDTH = 256  # of a head; wider ones do not fit a processor's own memory

_BLOCK = 64  # queries or keys, as long as those of a head take at most
_BLOCK_BYTES = 8192  # so that small GPUs hold all operands of the gradient
_PROGRAMS = 4096  # about as many as a large GPU runs at once
_SIDE = 16  # least side of a block
_LOWEST = np.finfo(np.float32).min
_SMALLEST = np.finfo(np.float32).tiny


def pallas_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    mask: np.ndarray | None = None,
    dropout_rate: float = 0.0,
    seed: jax.Array | None = None,
    *,
    interpret: bool = False,
) -> jax.Array:
    """What `ops.softmax_attention` computes, with the same elements dropped.

    The gradient computes the scores again: once, in five products instead of the
    value's two, where a cuboid fits one block; else once for keys and values, once for
    queries and once for the bias, nine products in all. A program adds up the bias's
    gradient over its cuboids before it writes it; what is then left to be summed is
    float32, at most about 8192 blocks of scores and never more than all scores.

    Products of float32 are those of the tensor cores (TF32) unless
    `jax.default_matmul_precision` asks for more. A compiler that splits arrays over
    devices does not look into kernels: on several, call it inside `jax.shard_map` with
    `check_vma=False`. Positions then count from each device's first example, so that a
    seed that is to drop different elements has to differ between devices.

    Args:
        query: `[b, n, a, q, e]` (example, cuboid, head, position, width), scaled.
        key: `[b, n, a, s, e]`.
        value: `[b, n, a, s, d]`.
        bias: `[a, q, s]` added to the scores (a may be 1), or None.
        mask: bool `[n, q, s]`, True where attention is allowed, or None.
        dropout_rate: share of attention weights dropped.
        seed: of `ops.dropout.draw_seed`; None drops nothing.
        interpret: runs the kernels as plain JAX, slowly, on any device.

    Returns:
        `[b, n, a, q, d]` in the type of `value`; zeros where nothing is allowed.

    Raises:
        ValueError: for heads wider than `MAX_WIDTH`, and for types other than one of
            float32, bfloat16 and float16 for query, key and value alike.

    Reference:
        Dao et al. 2022, FlashAttention, https://arxiv.org/abs/2205.14135, algorithm 1
        and appendix B.
    """
    b, n, a, q, e = query.shape
    s, d = value.shape[3:]
    types = {x.dtype.name for x in (query, key, value)}
    if len(types) > 1 or not types <= {"float32", "bfloat16", "float16"}:
        raise ValueError(
            "query, key and value need one type, float32, bfloat16 or float16; got "
            f"{', '.join(x.dtype.name for x in (query, key, value))}"
        )
    if max(e, d) > MAX_WIDTH:
        raise ValueError(
            f"heads are at most {MAX_WIDTH} wide; got {e} (query, key) and {d} (value)"
        )
    if not 0.0 <= dropout_rate <= 1.0:
        raise ValueError(f"a dropout rate lies between 0 and 1; got {dropout_rate}")
    if seed is not None and dropout_rate == 1.0:
        return jnp.zeros((b, n, a, q, d), value.dtype)
    inputs = {
        "query": query.reshape(b * n, a, q, e),
        "key": key.reshape(b * n, a, s, e),
        "value": value.reshape(b * n, a, s, d),
    }
    if bias is not None:
        bias = jnp.broadcast_to(bias, (bias.shape[0], q, s))
        inputs["bias"] = bias.astype(jnp.float32)
    if mask is not None:
        inputs["mask"] = jnp.asarray(mask, jnp.int8)
    if seed is not None and dropout_rate:
        inputs["seed"] = seed
    fit = _BLOCK_BYTES // (_padded(max(e, d)) * value.dtype.itemsize)
    block = max(_SIDE, min(_BLOCK, fit))
    plan = _Plan(b * n, a, q, s, e, d, block, dropout_rate, interpret)
    return _attend(plan, inputs).reshape(b, n, a, q, d)


class _Span(NamedTuple):
    """`size` positions from `start` on, of which those below `count` exist."""

    start: jax.Array | int
    size: int
    count: int

    def positions(self):
        """int32 `[size]`."""
        return self.start + jnp.arange(self.size, dtype=jnp.int32)

    def inside(self):
        """bool `[size]`, or None where all exist in every block of the axis."""
        if self.count % self.size == 0:
            return None
        return self.positions() < self.count


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What the kernels know when they are compiled. Axes: k stands for b and n."""

    k: int
    a: int
    q: int
    s: int
    e: int
    d: int
    longest: int  # block of queries or keys
    rate: float
    interpret: bool

    def side(self, axis: str) -> int:
        """Side of an axis's blocks."""
        side = _padded(getattr(self, axis))
        return side if axis in "ed" else min(side, self.longest)

    def blocks(self, axis: str) -> int:
        """Into how many blocks an axis is cut."""
        return pl.cdiv(getattr(self, axis), self.side(axis))

    def block(self, axis: str, number: jax.Array | int) -> _Span:
        """One block of an axis."""
        side = self.side(axis)
        return _Span(number * side, side, getattr(self, axis))

    def whole(self, axis: str) -> _Span:
        """An axis that is not cut."""
        return self.block(axis, 0)

    def spec(self, axes: str, group: int | None) -> pl.BlockSpec:
        """What one program sees of `[k, a, *axes]`: `[group, *axes]`, axes padded.

        Without a group it is one cuboid's `[*axes]`.
        """
        sides = [self.blocks(x) * self.side(x) for x in axes]
        return pl.BlockSpec(
            (group, None, *sides), lambda i, h, _: (i, h, *(0 for _ in axes))
        )

    def specs(self, inputs: dict, group: int | None) -> dict:
        """What one program sees of every input."""
        specs = {x: self.spec(_AXES[x], group) for x in inputs if x in _AXES}
        sides = [self.blocks(x) * self.side(x) for x in "qs"]
        if "bias" in inputs:
            heads = inputs["bias"].shape[0]
            specs["bias"] = pl.BlockSpec(
                (None, *sides), lambda i, h, _: (h if heads > 1 else 0, 0, 0)
            )
        if "mask" in inputs:
            cuboids = inputs["mask"].shape[0]
            specs["mask"] = pl.BlockSpec((cuboids, *sides), lambda i, h, _: (0, 0, 0))
        if "seed" in inputs:
            specs["seed"] = pl.BlockSpec((2,), lambda i, h, _: (0,))
        return specs

    def call(
        self, kernel, tiles: int, inputs: dict, outs: dict, group: int | None = None
    ):
        """Runs a kernel on cuboids (group by group), heads, and tiles of each.

        Args:
            kernel: function of (plan, references of inputs, references of outs).
            tiles: programs per group and head.
            inputs: name -> array.
            outs: name -> (axes, type), each `[k, a, *axes]`; "dbias" instead has one
                entry for each group.
            group: cuboids per program, None for one, without an axis for it.
        """
        groups = pl.cdiv(self.k, group or 1)
        shapes, specs = {}, {}
        for name, (axes, dtype) in outs.items():
            first, share = (groups, None) if name == "dbias" else (self.k, group)
            shape = (first, self.a, *(getattr(self, x) for x in axes))
            shapes[name] = jax.ShapeDtypeStruct(shape, dtype)
            specs[name] = self.spec(axes, share)
        # A warp alone multiplies small tiles; several share what fills its registers.
        short, long = sorted(self.side(x) for x in "qs")
        widest = max(self.side(x) for x in "ed")
        warps = min(max(long * max(short, widest) // 512, 1), 4)
        return pl.pallas_call(
            functools.partial(kernel, self),
            grid=(groups, self.a, tiles),
            in_specs=(self.specs(inputs, group),),
            out_specs=specs,
            out_shape=shapes,
            compiler_params=triton.CompilerParams(num_warps=warps, num_stages=2),
            interpret=self.interpret,
            name=f"cuboid_attention{kernel.__name__}",
        )(inputs)


# Letters of the axes after cuboid and head.
_AXES = dict(
    query="qe",
    key="se",
    value="sd",
    dout="qd",
    level="q",
    along="q",
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(plan: _Plan, inputs: dict):
    return _attend_forward(plan, inputs)[0]


def _attend_forward(plan, inputs):
    outs = dict(out=("qd", inputs["value"].dtype), level=("q", jnp.float32))
    found = plan.call(_forward, plan.blocks("q"), inputs, outs)
    return found["out"], (inputs, found["out"], found["level"])


def _attend_backward(plan, kept, dout):
    inputs, out, level = kept
    # Sum over keys of weight times its gradient.
    along = jnp.sum(dout.astype(jnp.float32) * out.astype(jnp.float32), axis=-1)
    more = inputs | dict(dout=dout, level=level, along=along)
    outs = {f"d{x}": (_AXES[x], inputs[x].dtype) for x in ("query", "key", "value")}
    rows, columns = plan.blocks("q"), plan.blocks("s")
    whole = rows * columns == 1
    found = {}
    if not whole:
        by_keys = {x: outs.pop(x) for x in ("dkey", "dvalue")}
        found |= plan.call(_backward_keys, columns, more, by_keys)
        by_queries = {"dquery": outs.pop("dquery")}
        found |= plan.call(_backward_queries, rows, more, by_queries)
    if "bias" in inputs:
        outs["dbias"] = ("qs", jnp.float32)
    if outs:
        programs = plan.k * plan.a * rows * columns
        group = min(max(programs // _PROGRAMS, 1), plan.k)
        found |= plan.call(_backward_tile, rows * columns, more, outs, group)
    gradients = {x: found.get(f"d{x}") for x in inputs}
    if "bias" in inputs:
        dbias = found["dbias"].sum(axis=0)
        if inputs["bias"].shape[0] == 1:
            dbias = dbias.sum(axis=0, keepdims=True)
        gradients["bias"] = dbias
    return (gradients,)


_attend.defvjp(_attend_forward, _attend_backward)


def _padded(size):
    """Least side of a block that holds `size` positions."""
    return max(_SIDE, pl.next_power_of_2(size))


def _forward(plan, inputs, outs):
    """Result and level of a block of queries."""
    cuboid, head = pl.program_id(0), pl.program_id(1)
    rows, width = plan.block("q", pl.program_id(2)), plan.whole("d")
    query = _load(inputs["query"], None, rows, plan.whole("e"))

    def step(number, carry):
        out, highest, total = carry
        columns = plan.block("s", number)
        key = _load(inputs["key"], None, columns, plan.whole("e"))
        value = _load(inputs["value"], None, columns, width)
        scores = _scores(inputs, cuboid, rows, columns, query, key)
        # Finite even where a row has no finite score.
        higher = jnp.maximum(highest, scores.max(axis=1))
        weights = jnp.exp(scores - higher[:, None])
        shrink = jnp.exp(highest - higher)
        total = total * shrink + weights.sum(axis=1)
        if "seed" in inputs:
            weights *= _kept(plan, inputs, cuboid, head, rows, columns)
        more = triton.dot(weights.astype(value.dtype), value)
        return out * shrink[:, None] + more, higher, total

    start = (
        jnp.zeros((rows.size, width.size), jnp.float32),
        jnp.full((rows.size,), _LOWEST, jnp.float32),
        jnp.zeros((rows.size,), jnp.float32),
    )
    out, highest, total = lax.fori_loop(0, plan.blocks("s"), step, start)
    total = jnp.maximum(total, _SMALLEST)
    _store(outs["out"], None, out / total[:, None], rows, width)
    _store(outs["level"], None, highest + jnp.log(total), rows)


def _backward_tile(plan, inputs, outs):
    """One block of queries and keys, for every cuboid of a group.

    Gives the sum over the group of the bias's gradient; where there is but one block,
    all others as well.
    """
    first, head, tile = pl.program_id(0), pl.program_id(1), pl.program_id(2)
    group = inputs["query"].shape[0]
    rows = plan.block("q", lax.div(tile, np.int32(plan.blocks("s"))))
    columns = plan.block("s", lax.rem(tile, np.int32(plan.blocks("s"))))

    def step(member, dbias):
        cuboid = first * group + member
        tiles = _tiles(plan, inputs, member, cuboid, head, rows, columns)
        if "dquery" in outs:
            width, value_width = plan.whole("e"), plan.whole("d")
            dquery = triton.dot(tiles.small, tiles.key)
            dkey = triton.dot(tiles.small, tiles.query, trans_a=True)
            dvalue = triton.dot(tiles.dropped, tiles.dout, trans_a=True)
            _store(outs["dquery"], member, dquery, rows, width)
            _store(outs["dkey"], member, dkey, columns, width)
            _store(outs["dvalue"], member, dvalue, columns, value_width)
        return dbias + tiles.dscores if "dbias" in outs else dbias

    # The last group may have fewer members.
    members = jnp.minimum(group, plan.k - first * group)
    shape = (rows.size, columns.size) if "dbias" in outs else ()
    dbias = lax.fori_loop(0, members, step, jnp.zeros(shape, jnp.float32))
    if "dbias" in outs:
        _store(outs["dbias"], None, dbias, rows, columns)


def _backward_keys(plan, inputs, outs):
    """Gradients of a block of keys and values."""
    cuboid, head = pl.program_id(0), pl.program_id(1)
    columns = plan.block("s", pl.program_id(2))
    width, value_width = plan.whole("e"), plan.whole("d")

    def step(number, carry):
        dkey, dvalue = carry
        rows = plan.block("q", number)
        tiles = _tiles(plan, inputs, None, cuboid, head, rows, columns)
        dkey += triton.dot(tiles.small, tiles.query, trans_a=True)
        dvalue += triton.dot(tiles.dropped, tiles.dout, trans_a=True)
        return dkey, dvalue

    start = tuple(
        jnp.zeros((columns.size, x.size), jnp.float32) for x in (width, value_width)
    )
    dkey, dvalue = lax.fori_loop(0, plan.blocks("q"), step, start)
    _store(outs["dkey"], None, dkey, columns, width)
    _store(outs["dvalue"], None, dvalue, columns, value_width)


def _backward_queries(plan, inputs, outs):
    """Gradient of a block of queries."""
    cuboid, head = pl.program_id(0), pl.program_id(1)
    rows, width = plan.block("q", pl.program_id(2)), plan.whole("e")

    def step(number, dquery):
        columns = plan.block("s", number)
        tiles = _tiles(plan, inputs, None, cuboid, head, rows, columns)
        return dquery + triton.dot(tiles.small, tiles.key)

    start = jnp.zeros((rows.size, width.size), jnp.float32)
    dquery = lax.fori_loop(0, plan.blocks("s"), step, start)
    _store(outs["dquery"], None, dquery, rows, width)


class _Tiles(NamedTuple):
    """A block of queries and keys in the gradient."""

    query: jax.Array
    key: jax.Array
    dout: jax.Array
    dropped: jax.Array  # weights after dropout, in the type of the values
    dscores: jax.Array  # float32
    small: jax.Array  # the same in the type of the queries


def _tiles(plan, inputs, member, cuboid, head, rows, columns):
    width, value_width = plan.whole("e"), plan.whole("d")
    query = _load(inputs["query"], member, rows, width)
    key = _load(inputs["key"], member, columns, width)
    value = _load(inputs["value"], member, columns, value_width)
    dout = _load(inputs["dout"], member, rows, value_width)
    level = _load(inputs["level"], member, rows)
    along = _load(inputs["along"], member, rows)
    scores = _scores(inputs, cuboid, rows, columns, query, key)
    # Rows beyond the last query have weights, but neither `dout` nor `along`.
    weights = dropped = jnp.exp(scores - level[:, None])
    dweights = triton.dot(dout, value, trans_b=True)
    if "seed" in inputs:
        kept = _kept(plan, inputs, cuboid, head, rows, columns)
        dropped, dweights = weights * kept, dweights * kept
    dscores = weights * (dweights - along[:, None])
    return _Tiles(
        query,
        key,
        dout,
        dropped.astype(value.dtype),
        dscores,
        dscores.astype(query.dtype),
    )


def _scores(inputs, cuboid, rows, columns, query, key):
    """float32 `[rows, columns]`; minus infinity where attention is not allowed."""
    scores = triton.dot(query, key, trans_b=True)
    if "bias" in inputs:
        scores += _load(inputs["bias"], None, rows, columns)
    if "mask" in inputs:
        mask = inputs["mask"]
        allowed = _load(mask, lax.rem(cuboid, np.int32(mask.shape[0])), rows, columns)
        return jnp.where(allowed != 0, scores, -jnp.inf)
    inside = columns.inside()
    return scores if inside is None else jnp.where(inside[None], scores, -jnp.inf)


def _kept(plan, inputs, cuboid, head, rows, columns):
    """`ops.dropout.keep_mask` of this block, as a factor on the weights."""
    row = (cuboid * plan.a + head).astype(jnp.uint32) * np.uint32(plan.q)
    row += rows.positions().astype(jnp.uint32)
    position = (row * np.uint32(plan.s))[:, None] + columns.positions().astype(
        jnp.uint32
    )[None]
    words = inputs["seed"][0], inputs["seed"][1]
    kept = hashed_bits(position, words) >= threshold(plan.rate)
    return jnp.where(kept, np.float32(1.0 / (1.0 - plan.rate)), np.float32(0.0))


def _load(ref, member, *spans):
    """`ref[member]`, or `ref`, in the spans; zeros where there is nothing."""
    part = _part(ref, member, spans)
    inside = _inside(spans)
    if inside is None:
        return triton.load(part)
    return triton.load(part, mask=inside, other=0)


def _store(ref, member, x, *spans):
    """Writes what exists of `x`."""
    part = _part(ref, member, spans)
    triton.store(part, x.astype(ref.dtype), mask=_inside(spans))


def _part(ref, member, spans):
    first = () if member is None else (member,)
    return ref.at[(*first, *(pl.ds(x.start, x.size) for x in spans))]


def _inside(spans):
    """bool of the spans' sizes, or None where everything exists."""
    found = None
    for axis, span in enumerate(spans):
        inside = span.inside()
        if inside is None:
            continue
        others = [i for i in range(len(spans)) if i != axis]
        inside = jnp.broadcast_to(
            jnp.expand_dims(inside, others), [x.size for x in spans]
        )
        found = inside if found is None else found & inside
    return found
