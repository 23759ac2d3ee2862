"""Cuboid self- and cross-attention: the projections around `ops.attention`."""

import dataclasses
import functools
from typing import Any

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from earthformer_jax.checks import shown
from earthformer_jax.layers import initializers
from earthformer_jax.layers.dense import Dense
from earthformer_jax.layers.dropout import Dropout
from earthformer_jax.layers.norm import make_norm
from earthformer_jax.models.earthformer.captured import Cut, record
from earthformer_jax.models.earthformer.options import AttentionOptions
from earthformer_jax.ops import attention, cuboid
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.devices import split
from earthformer_jax.ops.patterns import CrossSpec
from earthformer_jax.ops.resample import Grid
from earthformer_jax.ops.tuned.attention import attend
from earthformer_jax.ops.tuned.hashed_key import hashed_key
from earthformer_jax.ops.tuned.order import materialize


class _Projections(nn.Module):
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
        if _pads(spec, x.shape[1:4]) and not self.options.qkv_bias:
            return x, cut
        return materialize(cut(x)), lambda cuboids: cuboids

    def _merge_and_project(
        self, out, spec: CuboidSpec, grid: Grid, train, *, project=True
    ):
        """`[b, n, q, a, d]` merged to `[b, *grid, c]` and projected."""
        out = einops.rearrange(out, "b n q a d -> b n q (a d)")
        pads = _pads(spec, grid)
        if pads:
            out = cuboid.merge(out, spec, grid, self.options.padding)
        if project:
            out = self._project(out, train, None if pads else spec.reordered(grid))
        return out if pads else cuboid.merge(out, spec, grid, self.options.padding)

    def _project(self, out, train, reordered=None):
        """The output projection of `[..., c]`; `reordered` as for dropout."""
        out = self._dense("proj", out.shape[-1], use_bias=True)(out)
        return Dropout(self.options.proj_drop, train)(out, reordered)

    def _heads(self, name, features, parts=1):
        """A projection to `parts` times `features` channels, split into heads.

        Returns:
            a function of an array `[..., c]` and of the function to apply to its
            projection (see `_cuts`); it returns `parts` arrays
            `[..., a, features / a]`, or the array itself if there is one.
        """
        layer = self._dense(name, parts * features, use_bias=self.options.qkv_bias)

        def project(x, then=lambda y: y):
            heads = tuple(
                einops.rearrange(
                    then(part), "... (a d) -> ... a d", a=self.options.num_heads
                )
                for part in jnp.split(layer(x), parts, axis=-1)
            )
            return heads[0] if parts == 1 else heads

        return project

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

    def _dropout(self, train) -> dict[str, Any]:
        """Keyword arguments of dropout for the functions of `ops.attention`."""
        if not train or not self.options.attn_drop:
            return {}
        key = hashed_key(self.make_rng("dropout"))
        return dict(dropout_rate=self.options.attn_drop, dropout_key=key)


class CuboidSelfAttention(_Projections):
    """Attention inside cuboids and to global vectors, without the residual.

    Attributes:
        options: the options of the layer.
        spec: the cut of the grid; adapted to the field's grid when called.
        causal: a position sees none that come after it in raster order. There are no
            global vectors then, since those see everything.

    Reference:
        Gao et al. 2022, Earthformer, equations 4, 7, 8 and 10, and appendix C.
    """

    spec: CuboidSpec
    causal: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        global_vectors: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Updates of the field and the global vectors, both from their old values.

        Args:
            x: `[b, t, h, w, c]`.
            global_vectors: `[b, g, c']`, or None.
            train: whether dropout acts.

        Returns:
            `[b, t, h, w, c]` and `[b, g, c']` (or None), to be added to the inputs.

        Raises:
            ValueError: for global vectors in a causal layer, or heads that do not
                divide the channels.
        """
        if self.causal and global_vectors is not None:
            raise ValueError(
                f"global_vectors={shown(global_vectors)}: expected None in a causal "
                "layer, since global vectors see every position"
            )
        mask = cuboid.causal_mask if self.causal else cuboid.attention_mask
        grid, features = x.shape[1:4], x.shape[-1]
        scale = self._scale(features)
        spec = self.spec.fit(grid).spread(grid, split.parts(x))
        bias = self._bias_table(self.spec.size, self._bias_index(spec), x)

        field = self._cuts(self._norm("norm")(x), spec)
        query, key, value = self._heads("qkv", features, parts=3)(*field)
        local: dict[str, Any] = dict(
            query=query,
            key=key,
            value=value,
            scale=scale,
            bias=bias,
            mask=mask(grid, spec, self.options.padding),
            implementation=self.options.implementation,
            reordered=spec.reordered(grid),
            **self._dropout(train),
        )
        from_global: dict[str, Any] | None = None
        new_global = None
        if global_vectors is not None:
            g = self._norm("global_norm")(global_vectors)
            to_global, from_global = self._global_heads(g, field, query, key, value)
            local |= to_global
            from_global |= dict(scale=scale, valid=self._valid(grid, spec))
            new_global = attention.attend_global(
                **from_global, **self._dropout(train), reordered=local["reordered"]
            )
            new_global = einops.rearrange(new_global, "b g a d -> b g (a d)")
            if self.options.use_final_proj:
                width = new_global.shape[-1]
                new_global = self._dense(
                    "global_proj",
                    width,
                    use_bias=True,
                    kernel_init=initializers.torch_kernel,
                    bias_init=initializers.torch_bias(width),
                )(new_global)
                new_global = Dropout(self.options.proj_drop, train)(new_global)

        cut = Cut(grid, spec, self.options.padding)
        self._sow_weights(cut, cut, local, from_global)
        out = attend(**local)
        out = self._merge_and_project(
            out, spec, grid, train, project=self.options.use_final_proj
        )
        return out, new_global

    def _global_heads(self, g, field, query, key, value) -> tuple[dict, dict]:
        """Queries, keys and values of attention to and from the global vectors.

        `field` is what `_cuts` returns, the others are those inside cuboids.
        """
        features = field[0].shape[-1]
        if not self.options.separate_global_qkv:
            g_query, g_key, g_value = self._heads("global_qkv", features, parts=3)(g)
            to_global = dict(global_key=g_key, global_value=g_value)
            from_global = dict(query=g_query, key=key, value=value)
            if self.options.use_global_self_attn:
                from_global |= to_global
            return to_global, from_global
        width = g.shape[-1]
        g_key, g_value = self._heads("l2g_global_kv", features, parts=2)(g)
        to_global = dict(
            global_query=self._heads("l2g_q", features)(*field),
            global_key=g_key,
            global_value=g_value,
        )
        from_global = dict(
            query=self._heads("g2l_global_q", features)(g),
            key=self._heads("g2l_k", features)(*field),
            value=self._heads("g2l_v", width)(*field),
        )
        if self.options.use_global_self_attn:
            own_query, own_key, own_value = self._heads(
                "g2g_global_qkv", width, parts=3
            )(g)
            from_global |= dict(
                global_query=own_query, global_key=own_key, global_value=own_value
            )
        return to_global, from_global

    def _bias_index(self, spec: CuboidSpec) -> np.ndarray:
        reach = self.spec.size
        if self.options.match_reference:
            index = attention.relative_position_index(reach, reach, reach)
            return index[: spec.volume, : spec.volume]
        return attention.relative_position_index(spec.size, spec.size, reach)

    def _valid(self, grid: Grid, spec: CuboidSpec) -> np.ndarray | None:
        """bool `[n, q]` of the positions that the global vectors may see."""
        if self.options.padding != "ignore":
            return None
        valid = cuboid.validity(grid, spec)
        if self.options.match_reference:
            valid = cuboid.validity(grid, dataclasses.replace(spec, order="thw"))
            raster = cuboid.uncut(
                valid[None, :, :, None], spec.size, spec.strategy, spec.padded(grid)
            )
            valid = raster.reshape(valid.shape)
            reordered = spec.reordered(grid)
            if reordered is not None:
                apart = valid.T.reshape(reordered.apart(valid.T.shape))
                valid = np.asarray(reordered.merge(apart)).T
        return None if valid.all() else valid


class CuboidCrossAttention(_Projections):
    """Attention of a field to windows of a memory, without the residual.

    The field is normalised, the memory and its global vectors are not.

    Attributes:
        options: the options of the layer.
        spec: the windows of field and memory.
        max_temporal_relative: reach of the bias table in time: frames of the field
            plus frames of the memory, or more.
        last_n_frames: attend to the memory's last n frames only; None is all.

    Reference:
        Gao et al. 2022, Earthformer, section 3.3.
    """

    spec: CrossSpec
    max_temporal_relative: int
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
        cut, memory_cut = (
            self.spec.cuboid(each).spread(each, split.parts(x))
            for each in (grid, memory_grid)
        )
        reach = (self.max_temporal_relative, *self.spec.size)
        index = attention.relative_position_index(cut.size, memory_cut.size, reach)
        bias = self._bias_table(reach, index, x)

        queries = self._cuts(self._norm("norm")(x), cut)
        keys = self._cuts(memory, memory_cut, time_at_front=True)
        query = self._heads("q_proj", features)(*queries)
        to_keys = self._heads("kv_proj", features, parts=2)
        key, value = to_keys(*keys)
        to_global = {}
        if global_vectors is not None:
            if self.options.separate_global_qkv:
                to_keys = self._heads("l2g_global_kv", features, parts=2)
                to_global["global_query"] = self._heads("l2g_q", features)(*queries)
            g_key, g_value = to_keys(global_vectors)
            to_global |= dict(global_key=g_key, global_value=g_value)
        local: dict[str, Any] = dict(
            query=query,
            key=key,
            value=value,
            scale=scale,
            bias=bias,
            mask=cuboid.cross_attention_mask(
                grid, cut, memory_grid, memory_cut, self.options.padding
            ),
            implementation=self.options.implementation,
            reordered=cut.reordered(grid),
            **to_global,
            **self._dropout(train),
        )
        self._sow_weights(
            Cut(grid, cut, self.options.padding),
            Cut(memory_grid, memory_cut, self.options.padding, time_at_front=True),
            local,
        )
        out = attend(**local)
        return self._merge_and_project(out, cut, grid, train)


def _pads(spec: CuboidSpec, grid: Grid) -> bool:
    return spec.padded(grid) != tuple(grid)
