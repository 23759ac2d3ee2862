"""What attention layers of the Earthformer share: projections, cuts and bias tables."""

import functools
from typing import Any

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from earthformer_jax.layers import initializers
from earthformer_jax.layers.dense import Dense
from earthformer_jax.layers.dropout import Dropout
from earthformer_jax.layers.norm import make_norm
from earthformer_jax.models.earthformer.captured import Cut, record
from earthformer_jax.models.earthformer.options import AttentionOptions
from earthformer_jax.ops import attention, cuboid
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.devices import split
from earthformer_jax.ops.dropout import dropout
from earthformer_jax.ops.resample import Grid
from earthformer_jax.ops.tuned.hashed_key import hashed_key
from earthformer_jax.ops.tuned.order import materialize


class Projections(nn.Module):
    """What both layers share: normalisation, linear layers, heads, bias tables."""

    options: AttentionOptions

    def _norm(self, name):
        return make_norm(self.options.norm, name=name, **self.options.types)

    def _dense(self, name, features, *, use_bias, kernel_init=None, bias_init=None):
        return Dense(
            features,
            use_bias=use_bias,
            kernel_init=kernel_init or initializers.linear(self.options.linear_init),
            bias_init=bias_init or nn.initializers.zeros,
            name=name,
            **self.options.types,
        )

    def _cuts(self, x, spec: CuboidSpec, *, time_at_front=False):
        """The array to project, and the function that makes cuboids of the result.

        Cutting comes first, because sorting is cheapest where the channels are fewest.
        Where the cut pads, and the projections map zeros to zeros, it comes after them:
        then less has to be projected.

        Args:
            x: `[b, t, h, w, c]`.
            spec: the cut.
            time_at_front: whether time is padded at the front.

        Returns:
            the field and a function that cuts, or the field's cuboids `[b, n, q, c]`
            and the identity.
        """
        cut = functools.partial(
            cuboid.decompose,
            spec=spec,
            padding=self.options.padding,
            time_at_front=time_at_front,
        )
        if pads(spec, x.shape[1:4]) and not self.options.qkv_bias:
            return x, cut
        return materialize(cut(x)), lambda cuboids: cuboids

    def _merge_and_project(self, out, spec: CuboidSpec, grid: Grid, proj, key):
        """`[b, n, q, a, d]` merged to `[b, *grid, c]` and projected.

        `proj` is the projection, or None; `key` that of the dropout after it.
        """
        out = einops.rearrange(out, "b n q a d -> b n q (a d)")
        padded = pads(spec, grid)
        if padded:
            out = cuboid.merge(out, spec, grid, self.options.padding)
        if proj is not None:
            reordered = None if padded else spec.reordered(grid)
            out = dropout(proj(out), self.options.proj_drop, key, reordered)
        return out if padded else cuboid.merge(out, spec, grid, self.options.padding)

    def _project(self, out, train):
        """The output projection of `[..., c]`, with dropout."""
        layer = self._bind("proj", out.shape[-1], out.shape[-1], use_bias=True)
        return Dropout(self.options.proj_drop, train)(layer(out))

    def _bind(self, name, inputs, features, use_bias=None):
        """A linear layer as a pure function that carries its weights."""
        use_bias = self.options.qkv_bias if use_bias is None else use_bias
        return self._dense(name, features, use_bias=use_bias).bind_weights(inputs)

    def _by_head(self, layer, x, then=lambda y: y, count=1):
        """The projection of `[..., c]` in `count` arrays `[..., a, features / a]`.

        `then` is applied to each (see `_cuts`). One array is returned by itself.
        """
        heads = tuple(
            einops.rearrange(
                then(part), "... (a d) -> ... a d", a=self.options.num_heads
            )
            for part in jnp.split(layer(x), count, axis=-1)
        )
        return heads[0] if count == 1 else heads

    def _pieces(self, grid: Grid, *specs: CuboidSpec) -> tuple[int, int]:
        """The axis along which a field can be divided, and into how many pieces.

        It is the first axis that has several cuboids, so that those of a piece follow
        each other, as their random numbers do. One piece: it cannot be divided.
        """
        spec = specs[0]
        counts = spec.counts(grid)
        axis = next((i for i, n in enumerate(counts) if n > 1), 0)
        whole = grid[axis] == counts[axis] * spec.size[axis]
        near = all(s.strategy[axis] == "l" and not s.shift[axis] for s in specs)
        in_order = axis == 0 or not pads(spec, grid)
        divides = whole and near and in_order and spec.order == "thw"
        if self.is_mutable_collection("intermediates"):
            divides = False
        return 1 + axis, counts[axis] if divides else 1

    def _scale(self, features):
        heads = self.options.num_heads
        if features % heads:
            raise ValueError(
                f"num_heads must divide the channels; got {heads} heads for "
                f"{features} channels"
            )
        return self.options.qk_scale or (features // heads) ** -0.5

    def _bias_table(
        self, reach: Grid, index: np.ndarray | jax.Array, x: jax.Array | None = None
    ):
        """`[a, q, s]`, or `[p, a, q, s]` for p shares of the examples of `x`."""
        if not self.options.use_relative_pos:
            return None
        table = self.param(
            "relative_position_bias",
            initializers.table,
            (attention.table_rows(reach), self.options.num_heads),
            self.options.param_dtype,
        )
        copied = None
        if x is not None and self.options.implementation == "xla":
            copied = split.copies(table, x)
        return attention.relative_position_bias(
            table if copied is None else copied, index
        )

    def _sow_weights(self, queries: Cut, keys: Cut, local, from_global=None):
        """Computes attention weights where "intermediates" are asked for."""
        if self.is_mutable_collection("intermediates"):
            weights = record(queries, keys, local, from_global)
            self.sow("intermediates", "attention", weights)

    def _key(self, train) -> jax.Array | None:
        """A key for dropout of attention weights, or None where none are dropped."""
        if not train or not self.options.attn_drop:
            return None
        return hashed_key(self.make_rng("dropout"))

    def _dropout(self, key: jax.Array | None) -> dict[str, Any]:
        """Keyword arguments of dropout for the functions of `ops.attention`."""
        if key is None:
            return {}
        return dict(dropout_rate=self.options.attn_drop, dropout_key=key)


def pads(spec: CuboidSpec, grid: Grid) -> bool:
    """Whether cutting a grid into cuboids pads it."""
    return spec.padded(grid) != tuple(grid)
