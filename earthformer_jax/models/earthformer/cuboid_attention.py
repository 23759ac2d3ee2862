"""Cuboid self- and cross-attention: projections around `ops.attention`."""

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
from earthformer_jax.ops import attention, cuboid
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.dense import settle
from earthformer_jax.ops.patterns import CrossSpec
from earthformer_jax.ops.resample import Grid


class _Projections(nn.Module):
    """What both layers share: options, linear layers, heads.

    Attributes:
        num_heads: attention heads; divides the channels.
        qkv_bias: biases in the projections to queries, keys and values.
        qk_scale: factor on the scores; None is head width ** -0.5.
        attn_drop: dropout rate on attention weights.
        proj_drop: dropout rate after the output projection.
        norm: "layer_norm" or "rms_norm".
        padding: "ignore", "zeros" or "nearest".
        use_relative_pos: add a learned bias by relative position in the cuboid.
        separate_global_qkv: projections of their own for local-to-global,
            global-to-local and global-to-global attention.
        linear_init: linear initialisation, "fan_in" or "fan_out".
        implementation: of attention inside cuboids, see `ops.attention.attend`.
        dtype: of the arithmetic; None follows the input.
        param_dtype: of the parameters.
    """

    num_heads: int
    qkv_bias: bool = False
    qk_scale: float | None = None
    attn_drop: float = 0.0
    proj_drop: float = 0.0
    norm: str = "layer_norm"
    padding: str = "zeros"
    use_relative_pos: bool = True
    separate_global_qkv: bool = False
    linear_init: str = "fan_in"
    implementation: str = "xla"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def _types(self):
        return dict(dtype=self.dtype, param_dtype=self.param_dtype)

    def _norm(self, name):
        return make_norm(self.norm, name=name, **self._types())

    def _dense(self, name, features, *, use_bias, kernel_init=None, bias_init=None):
        return Dense(
            features,
            use_bias=use_bias,
            kernel_init=kernel_init or initializers.linear(self.linear_init),
            bias_init=bias_init or nn.initializers.zeros,
            name=name,
            **self._types(),
        )

    def _enter(self, x, spec: CuboidSpec, *, time_at_front=False):
        """What is to be projected of a field `[b, t, h, w, c]`, and what follows.

        The cut comes first, for sorting is cheapest where the channels are fewest.
        Where it pads, and the projections make zeros of zeros, it follows them: there
        is less to project.

        Returns:
            the field, or its cuboids `[b, n, q, c]`; and a function of what they are
            projected to, which makes cuboids of it.
        """
        cut = functools.partial(
            cuboid.decompose,
            spec=spec,
            padding=self.padding,
            time_at_front=time_at_front,
        )
        if _pads(spec, x.shape[1:4]) and not self.qkv_bias:
            return x, cut
        return settle(cut(x)), lambda cuboids: cuboids

    def _leave(self, out, spec: CuboidSpec, grid: Grid, train, *, project=True):
        """`[b, n, q, a, d]` merged to `[b, *grid, c]` and projected."""
        out = einops.rearrange(out, "b n q a d -> b n q (a d)")
        pads = _pads(spec, grid)
        if pads:
            out = cuboid.merge(out, spec, grid, self.padding)
        if project:
            out = self._dense("proj", out.shape[-1], use_bias=True)(out)
            out = Dropout(self.proj_drop, train)(out)
        return out if pads else cuboid.merge(out, spec, grid, self.padding)

    def _heads(self, name, features, parts=1):
        """A projection to `parts` times `features` channels, sorted by head.

        Returns:
            function of an array `[..., c]`, and of another that is called with the
            result, to `parts` arrays `[..., a, features / a]`.
        """
        layer = self._dense(name, parts * features, use_bias=self.qkv_bias)

        def project(x, then=lambda y: y):
            heads = tuple(
                einops.rearrange(then(part), "... (a d) -> ... a d", a=self.num_heads)
                for part in jnp.split(layer(x), parts, axis=-1)
            )
            return heads[0] if parts == 1 else heads

        return project

    def _scale(self, features):
        if features % self.num_heads:
            raise ValueError(
                f"num_heads must divide the channels; got {self.num_heads} heads "
                f"for {features} channels"
            )
        return self.qk_scale or (features // self.num_heads) ** -0.5

    def _bias_table(self, reach: Grid, index: np.ndarray):
        if not self.use_relative_pos:
            return None
        table = self.param(
            "relative_position_bias",
            initializers.table,
            (attention.table_rows(reach), self.num_heads),
            self.param_dtype,
        )
        return attention.relative_position_bias(table, index)

    def _dropout(self, train):
        """Keyword arguments of dropout for the functions of `ops.attention`."""
        if not train or not self.attn_drop:
            return {}
        key = self.make_rng("dropout")
        return dict(dropout_rate=self.attn_drop, dropout_key=key)


class CuboidSelfAttention(_Projections):
    """Attention inside cuboids and to global vectors, without the residual.

    Attributes:
        spec: the cut of the grid; fitted to the field's grid when called.
        use_global_self_attn: global vectors attend to each other as well.
        use_final_proj: output projections (of the field and of the global vectors).
        match_reference: repeat two slips of the reference implementation that the
            released weights do not depend on: bias rows taken as a prefix of the flat
            index when a cuboid shrinks in height or width, and the mask of global
            attention in raster order when padding is "ignore".

    Reference:
        Gao et al. 2022, Earthformer, equations 4, 7, 8 and 10.
    """

    spec: CuboidSpec = CuboidSpec((1, 1, 1))
    use_global_self_attn: bool = False
    use_final_proj: bool = True
    match_reference: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        global_vectors: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Updates of the field and of the global vectors, from the old values of both.

        Args:
            x: `[b, t, h, w, c]`.
            global_vectors: `[b, g, c']`, or None.
            train: whether dropout acts.

        Returns:
            `[b, t, h, w, c]` and `[b, g, c']` (or None), to be added to the inputs.
        """
        grid, features = x.shape[1:4], x.shape[-1]
        scale = self._scale(features)
        spec = self.spec.fit(grid)
        bias = self._bias_table(self.spec.size, self._bias_index(spec))

        entered = self._enter(self._norm("norm")(x), spec)
        query, key, value = self._heads("qkv", features, parts=3)(*entered)
        local = dict(
            scale=scale,
            bias=bias,
            mask=cuboid.attention_mask(grid, spec, self.padding),
            implementation=self.implementation,
            **self._dropout(train),
        )
        new_global = None
        if global_vectors is not None:
            g = self._norm("global_norm")(global_vectors)
            to_global, from_global = self._global_heads(g, entered, query, key, value)
            local |= to_global
            new_global = attention.attend_global(
                **from_global,
                scale=scale,
                valid=self._valid(grid, spec),
                **self._dropout(train),
            )
            new_global = einops.rearrange(new_global, "b g a d -> b g (a d)")
            if self.use_final_proj:
                width = new_global.shape[-1]
                new_global = self._dense(
                    "global_proj",
                    width,
                    use_bias=True,
                    kernel_init=initializers.torch_kernel,
                    bias_init=initializers.torch_bias(width),
                )(new_global)
                new_global = Dropout(self.proj_drop, train)(new_global)

        out = attention.attend(query, key, value, **local)
        out = self._leave(out, spec, grid, train, project=self.use_final_proj)
        return out, new_global

    def _global_heads(self, g, entered, query, key, value):
        """Queries, keys and values of attention to and from the global vectors."""
        features = entered[0].shape[-1]
        if not self.separate_global_qkv:
            g_query, g_key, g_value = self._heads("global_qkv", features, parts=3)(g)
            to_global = dict(global_key=g_key, global_value=g_value)
            from_global = dict(query=g_query, key=key, value=value)
            if self.use_global_self_attn:
                from_global |= to_global
            return to_global, from_global
        width = g.shape[-1]
        g_key, g_value = self._heads("l2g_global_kv", features, parts=2)(g)
        to_global = dict(
            global_query=self._heads("l2g_q", features)(*entered),
            global_key=g_key,
            global_value=g_value,
        )
        from_global = dict(
            query=self._heads("g2l_global_q", features)(g),
            key=self._heads("g2l_k", features)(*entered),
            value=self._heads("g2l_v", width)(*entered),
        )
        if self.use_global_self_attn:
            own_query, own_key, own_value = self._heads(
                "g2g_global_qkv", width, parts=3
            )(g)
            from_global |= dict(
                global_query=own_query, global_key=own_key, global_value=own_value
            )
        return to_global, from_global

    def _bias_index(self, spec: CuboidSpec) -> np.ndarray:
        reach = self.spec.size
        if self.match_reference:
            index = attention.relative_position_index(reach, reach, reach)
            return index[: spec.volume, : spec.volume]
        return attention.relative_position_index(spec.size, spec.size, reach)

    def _valid(self, grid: Grid, spec: CuboidSpec) -> np.ndarray | None:
        """bool `[n, q]` of the positions that the global vectors may see."""
        if self.padding != "ignore":
            return None
        valid = cuboid.validity(grid, spec)
        if self.match_reference:
            raster = cuboid.uncut(
                valid[None, :, :, None], spec.size, spec.strategy, spec.padded(grid)
            )
            valid = raster.reshape(valid.shape)
        return None if valid.all() else valid


class CuboidCrossAttention(_Projections):
    """Attention of a field to windows of a memory, without the residual.

    The field is normalised, the memory and its global vectors are not.

    Attributes:
        spec: the windows of field and memory.
        max_temporal_relative: reach of the bias table in time: frames of the field
            plus frames of the memory, or more.
        last_n_frames: attend to the memory's last n frames only; None is all.

    Reference:
        Gao et al. 2022, Earthformer, section 3.3.
    """

    spec: CrossSpec = CrossSpec((1, 1))
    max_temporal_relative: int = 50
    last_n_frames: int | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array,
        global_vectors: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array:
        """The update of the field.

        Args:
            x: `[b, t, h, w, c]`.
            memory: `[b, t', h, w, c]`.
            global_vectors: the memory's `[b, g, c']`, or None.
            train: whether dropout acts.

        Returns:
            `[b, t, h, w, c]`, to be added to the field.
        """
        if self.last_n_frames is not None:
            memory = memory[:, -self.last_n_frames :]
        grid, memory_grid, features = x.shape[1:4], memory.shape[1:4], x.shape[-1]
        if grid[1:] != memory_grid[1:]:
            raise ValueError(
                f"field and memory need the same plane; got {grid} and {memory_grid}"
            )
        scale = self._scale(features)
        cut, memory_cut = self.spec.cuboid(grid), self.spec.cuboid(memory_grid)
        reach = (self.max_temporal_relative, *self.spec.size)
        index = attention.relative_position_index(cut.size, memory_cut.size, reach)
        bias = self._bias_table(reach, index)

        queries = self._enter(self._norm("norm")(x), cut)
        keys = self._enter(memory, memory_cut, time_at_front=True)
        query = self._heads("q_proj", features)(*queries)
        to_keys = self._heads("kv_proj", features, parts=2)
        key, value = to_keys(*keys)
        to_global = {}
        if global_vectors is not None:
            if self.separate_global_qkv:
                to_keys = self._heads("l2g_global_kv", features, parts=2)
                to_global["global_query"] = self._heads("l2g_q", features)(*queries)
            g_key, g_value = to_keys(global_vectors)
            to_global |= dict(global_key=g_key, global_value=g_value)
        out = attention.attend(
            query,
            key,
            value,
            scale=scale,
            bias=bias,
            mask=cuboid.cross_attention_mask(
                grid, cut, memory_grid, memory_cut, self.padding
            ),
            implementation=self.implementation,
            **to_global,
            **self._dropout(train),
        )
        return self._leave(out, cut, grid, train)


def _pads(spec: CuboidSpec, grid: Grid) -> bool:
    return spec.padded(grid) != tuple(grid)
