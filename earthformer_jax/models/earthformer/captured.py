"""What an Earthformer computes inside: attention weights, memories, global vectors.

    captured = inspect(model, variables, inputs)
    list(captured.attention)                     # names of the attention layers
    layer = "encoder/block_0_0/attention_1"
    captured.attention[layer].weights            # [b, n, a, q, s]
    attention_map(captured, layer, (5, 3, 7))    # [t, h, w]: what this cell looks at

Cells are those of the level of the layer, see `Earthformer.memory_grids`: one of them
covers several pixels of a frame. The layers sow all this into the collection
"intermediates", and compute attention weights only where that collection is mutable.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from earthformer_jax.ops import cuboid
from earthformer_jax.ops.attention import bias_of_examples
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.resample import Grid


@dataclasses.dataclass(frozen=True)
class Cut:
    """A grid, and how it is cut into cuboids.

    Attributes:
        grid: (t, h, w) of the field.
        spec: the cut.
        padding: "ignore", "zeros" or "nearest".
        time_at_front: whether time is padded at the front.
    """

    grid: Grid
    spec: CuboidSpec
    padding: str
    time_at_front: bool = False

    def cells(self) -> np.ndarray:
        """int `[n, q]`: the cell that each position of a cuboid holds.

        Cells are counted in raster order; -1 stands for padding.
        """
        return cuboid.raster_order(
            self.grid, self.spec, self.padding, time_at_front=self.time_at_front
        )

    def positions(self) -> np.ndarray:
        """int `[t, h, w]`: the position whose result each cell takes.

        Positions are counted through the cuboids `[n, q]` in their order.
        """
        count = np.prod(self.spec.padded(self.grid))
        number = jnp.arange(count, dtype=np.int32).reshape(1, -1, self.spec.volume, 1)
        merged = cuboid.merge(number, self.spec, self.grid, self.padding)
        return np.asarray(merged)[0, ..., 0]


@flax.struct.dataclass
class AttentionWeights:
    """Weights of one attention layer, without dropout, and where its cuboids lie.

    A position's weights, those for global vectors included, sum to 1; they are zeros
    where nothing may be attended to.

    Attributes:
        weights: `[b, n, a, q, s]`, of position q of cuboid n for its keys s.
        to_global: `[b, n, a, q, g]`, of the same positions for the global vectors, or
            None.
        of_global: `[b, a, g, n, s]`, of the global vectors for all positions, or None
            where they are not updated.
        among_global: `[b, a, g, g]`, of the global vectors for each other, or None.
        queries: the cut of the field.
        keys: the cut of the field attended to.
    """

    weights: jax.Array
    to_global: jax.Array | None
    of_global: jax.Array | None
    among_global: jax.Array | None
    queries: Cut = flax.struct.field(pytree_node=False)
    keys: Cut = flax.struct.field(pytree_node=False)


def record(
    queries: Cut,
    keys: Cut,
    local: Mapping[str, Any],
    from_global: Mapping[str, Any] | None = None,
) -> AttentionWeights:
    """The weights behind calls of `ops.attention`.

    Args:
        queries: the cut of the field.
        keys: the cut of the field attended to.
        local: arguments of `attend`.
        from_global: arguments of `attend_global`, or None.
    """
    inner = local["key"].shape[2]
    weights = attention_weights(**local)
    to_global = weights[..., inner:] if weights.shape[-1] > inner else None
    of_global = among_global = None
    if from_global is not None:
        # One cuboid that holds all positions.
        key, valid = from_global["key"], from_global["valid"]
        shape, count = key.shape[1:3], key.shape[1] * key.shape[2]
        one = dict(from_global, query=from_global["query"][:, None])
        one["key"] = key.reshape(key.shape[0], 1, count, *key.shape[3:])
        if from_global.get("global_query") is not None:
            one["global_query"] = from_global["global_query"][:, None]
        one["mask"] = None if valid is None else valid.reshape(1, 1, count)
        both = attention_weights(**one)[:, 0]
        of_global = both[..., :count].reshape(*both.shape[:-1], *shape)
        among_global = both[..., count:] if both.shape[-1] > count else None
    return AttentionWeights(
        weights[..., :inner], to_global, of_global, among_global, queries, keys
    )


def attention_weights(
    query: jax.Array,
    key: jax.Array,
    *,
    scale: float,
    bias: jax.Array | None = None,
    mask: np.ndarray | None = None,
    global_query: jax.Array | None = None,
    global_key: jax.Array | None = None,
    **_,
) -> jax.Array:
    """The weights that `ops.attention.attend` gives its values, computed plainly.

    Args:
        query, key, scale, bias, mask, global_query, global_key: as for `attend`, whose
            other arguments are accepted and not used.

    Returns:
        float32 `[b, n, a, q, s + g]`: of the cuboid's keys, then of the global vectors.
    """
    products = functools.partial(
        jnp.einsum,
        preferred_element_type=jnp.promote_types(query.dtype, jnp.float32),
    )
    scores = products("bnqad,bnsad->bnaqs", query * scale, key)
    if bias is not None:
        scores += bias_of_examples(bias, query.shape[0])
    where = None
    if mask is not None:
        where = jnp.broadcast_to(jnp.asarray(mask)[:, None], scores.shape)
    if global_key is not None:
        own = query if global_query is None else global_query
        far = products("bnqad,bgad->bnaqg", own * scale, global_key)
        scores = jnp.concatenate([scores, far], axis=-1)
        if where is not None:
            where = jnp.concatenate([where, jnp.ones(far.shape, bool)], axis=-1)
    return jax.nn.softmax(scores, axis=-1, where=where)


@dataclasses.dataclass(frozen=True)
class Captured:
    """A forecast and what was computed on the way.

    Attributes:
        forecast: `[b, K, H, W, C_out]`.
        attention: layer name -> weights, in the order of computation.
        memories: `[b, t, h, w, c]` of each level, what the encoder hands on.
        global_vectors: `[b, g, c]` of each level; empty without global vectors.
    """

    forecast: jax.Array
    attention: Mapping[str, AttentionWeights]
    memories: Sequence[jax.Array]
    global_vectors: Sequence[jax.Array]


def inspect(model, variables: Mapping[str, Any], inputs: jax.Array) -> Captured:
    """Runs a model and keeps what is computed inside.

    Args:
        model: an `Earthformer`.
        variables: as for `model.apply`.
        inputs: `[b, T, H, W, C_in]`; one example or a few, because the weights of
            attention among n positions take n * n numbers per head.
    """
    names = []

    @jax.jit
    def run(variables, inputs):
        forecast, found = model.apply(variables, inputs, mutable="intermediates")
        flat = traverse_util.flatten_dict(found["intermediates"], sep="/")
        names.extend(flat)  # here in the order of computation; outside it is sorted
        return forecast, list(flat.values())

    forecast, values = run(variables, inputs)
    found = dict(zip(names, values, strict=True))
    ending = "/attention"
    return Captured(
        forecast,
        {
            k.removesuffix(ending): v
            for k, (v, *_) in found.items()
            if k.endswith(ending)
        },
        found["encoder/memories"],
        found.get("encoder/global_vectors", ()),
    )


def attention_map(
    captured: Captured,
    layer: str | Sequence[str],
    query: Grid,
    *,
    example: int = 0,
    head: int | None = None,
) -> np.ndarray:
    """Where a cell looks, as a field.

    Several layers are followed back in turn, from the last to the first: the map of an
    axial block says which cells reach the query along time, height and width together.
    The residual connections, feed-forward layers and values do not enter.

    Args:
        captured: of `inspect`.
        layer: a name of `captured.attention`, or several in order of computation.
        query: (t, h, w), a cell of the (last) layer's field.
        example: number in the batch.
        head: number of the head; None is the mean over all.

    Returns:
        float32 `[t, h, w]` on the grid that the (first) layer attends to. It sums to 1
        less what goes to global vectors and to padding.

    Raises:
        ValueError: for an unknown layer, a query outside the grid, or layers whose
            grids differ.
    """
    names = (layer,) if isinstance(layer, str) else tuple(layer)
    last = _layer(captured, names[-1]).queries.grid
    if not all(0 <= i < n for i, n in zip(query, last, strict=True)):
        raise ValueError(f"query {tuple(query)} is outside the grid {last}")
    share = np.zeros(last, np.float32)
    share[tuple(query)] = 1
    for name in reversed(names):
        found = _layer(captured, name)
        grid = found.queries.grid
        if share.shape != grid:
            raise ValueError(
                f"{name} works on the grid {grid}, the layer after it on {share.shape}"
            )
        weights = _of_heads(found.weights[example], head, axis=1)
        at_queries = np.zeros(weights.shape[:2], np.float32)
        np.add.at(at_queries.reshape(-1), found.queries.positions(), share)
        at_keys = np.einsum("nq,nqs->ns", at_queries, weights)
        share = _on_grid(at_keys, found.keys)
    return share


def global_map(
    captured: Captured,
    layer: str,
    vector: int,
    *,
    example: int = 0,
    head: int | None = None,
) -> np.ndarray:
    """Where a global vector looks, as a field.

    Args:
        captured: of `inspect`.
        layer: a name of `captured.attention`.
        vector: number of the global vector.
        example: number in the batch.
        head: number of the head; None is the mean over all.

    Returns:
        float32 `[t, h, w]` on the layer's grid.

    Raises:
        ValueError: for an unknown layer, or one that updates no global vectors.
    """
    found = _layer(captured, layer)
    if found.of_global is None:
        raise ValueError(f"{layer} does not update global vectors")
    weights = _of_heads(found.of_global[example, :, vector], head, axis=0)
    return _on_grid(weights, found.keys)


def _layer(captured, name):
    if name not in captured.attention:
        raise ValueError(
            f"no attention layer {name!r}; there are {', '.join(captured.attention)}"
        )
    return captured.attention[name]


def _of_heads(weights, head, axis):
    weights = np.asarray(weights, np.float32)
    return weights.mean(axis) if head is None else weights.take(head, axis)


def _on_grid(at_keys, keys: Cut):
    """`[n, s]` added up to `[t, h, w]`; what lies on padding is left out."""
    total = np.zeros(np.prod(keys.grid) + 1, np.float32)  # padding is -1: the last one
    np.add.at(total, keys.cells(), at_keys)
    return total[:-1].reshape(keys.grid)
