"""Cuboid self- and cross-attention: the projections around `ops.attention`."""

import dataclasses
import functools
from typing import Any, NamedTuple

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from earthformer_jax.checks import shown
from earthformer_jax.layers import initializers
from earthformer_jax.layers.dense import weights_of_dense
from earthformer_jax.layers.dropout import Dropout
from earthformer_jax.layers.norm import weights_of_norm
from earthformer_jax.models.earthformer.captured import Cut
from earthformer_jax.models.earthformer.projections import Projections
from earthformer_jax.ops import attention, cuboid, global_attention
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.devices import split
from earthformer_jax.ops.patterns import CrossSpec
from earthformer_jax.ops.resample import Grid
from earthformer_jax.ops.tuned.attention import attend
from earthformer_jax.ops.tuned.hashed_key import starting_at
from earthformer_jax.ops.tuned.in_parts import in_parts, parts
from earthformer_jax.ops.tuned.native import self_attention as native


class _Shared(NamedTuple):
    """What all cuboids of a layer use.

    Attributes:
        layers: projections and norm by name, as pure functions with their weights.
        bias: as for `ops.attention.attend`.
        key: for dropout of attention weights, or None.
        out_key: for dropout after the projection, or None.
    """

    layers: dict[str, Any]
    bias: jax.Array | None
    key: jax.Array | None
    out_key: jax.Array | None


class _Vectors(NamedTuple):
    """The heads of global vectors, as arguments of functions of `ops.attention`.

    Attributes:
        seen: of `attend`, by the positions.
        own: of `attend_global`, by themselves.
    """

    seen: dict[str, jax.Array]
    own: dict[str, jax.Array]


class CuboidSelfAttention(Projections):
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
        grid, features = x.shape[1:4], x.shape[-1]
        spec = self.spec.fit(grid).spread(grid, split.parts(x))
        layers = self._layers_of_field(features)
        if global_vectors is None:
            out = self._in_cpp(x, layers, spec, train)
            if out is not None:
                return out, None
        axis, pieces = self._pieces(grid, spec)
        # The released weights count padded positions in another order: not by parts.
        mixed = self.options.match_reference and self._valid(grid, spec) is not None
        divided = train and not mixed and parts((x,), pieces) > 1
        bias = self._bias_table(
            self.spec.size, self._bias_index(spec), None if divided else x
        )
        vectors, key_of_vectors, to_vectors = None, None, None
        local_key = self._key(train)
        if global_vectors is not None:
            vectors = self._heads_of_vectors(features, global_vectors)
            if self.options.separate_global_qkv:
                layers |= self._layers_between(features, global_vectors.shape[-1])
            key_of_vectors = self._key(train)
            to_vectors = self._leave_vectors(global_vectors, train)
        out_key = Dropout(self.options.proj_drop, train).key()
        shared = _Shared(layers, bias, local_key, out_key)
        if not divided:
            out, from_global = self._inside(shared, vectors, x)
            if to_vectors is None:
                return out, None
            new = global_attention.attend_global(
                **from_global,
                **self._dropout(key_of_vectors),
                reordered=spec.reordered(grid),
            )
            return out, to_vectors(new)

        def part(shared, of_example, fields):
            vectors, key = of_example
            out, from_global = self._inside(shared, vectors, fields[0])
            if vectors is None:
                return out, ()
            own = ("global_query", "global_key", "global_value")
            near = {k: v for k, v in from_global.items() if k not in own}
            return out, global_attention.global_sums(**near, **self._dropout(key))

        positions = np.prod(spec.padded(grid))
        key, own_key = self._keys_of_sums(key_of_vectors, vectors, len(x), positions)
        out, sums = in_parts(part, shared, (vectors, key), (x,), axis, pieces)
        if vectors is None or to_vectors is None:
            return out, None
        more = self._sums_of_vectors(vectors.own, self._scale(features), own_key)
        return out, to_vectors(global_attention.join_sums(sums, more))

    def _inside(
        self, shared: _Shared, vectors: _Vectors | None, x: jax.Array
    ) -> tuple[jax.Array, dict[str, Any]]:
        """The update of a field, or of whole cuboids of it, as a pure function.

        Args:
            shared: by all cuboids.
            vectors: the global vectors, or None.
            x: `[b, t, h, w, c]`.

        Returns:
            the update, and arguments of `attend_global`.
        """
        layers = shared.layers
        grid, scale = x.shape[1:4], self._scale(x.shape[-1])
        spec = self.spec.fit(grid).spread(grid, split.parts(x))
        field = self._cuts(layers["norm"](x), spec)
        query, key, value = self._by_head(layers["qkv"], *field, count=3)
        local: dict[str, Any] = dict(
            query=query,
            key=key,
            value=value,
            scale=scale,
            bias=shared.bias,
            mask=self._mask(grid, spec),
            implementation=self.options.implementation,
            reordered=spec.reordered(grid),
            **self._dropout(shared.key),
        )
        from_global: dict[str, Any] = {}
        if vectors is not None:
            local |= vectors.seen
            from_global = dict(key=key, value=value) | vectors.own
            if self.options.separate_global_qkv:
                local["global_query"] = self._by_head(layers["l2g_q"], *field)
                from_global |= dict(
                    key=self._by_head(layers["g2l_k"], *field),
                    value=self._by_head(layers["g2l_v"], *field),
                )
            from_global |= dict(scale=scale, valid=self._valid(grid, spec))
        cut = Cut(grid, spec, self.options.padding)
        self._sow_weights(cut, cut, local, from_global or None)
        out = attend(**local)
        out = self._merge_and_project(
            out, spec, grid, layers.get("proj"), shared.out_key
        )
        return out, from_global

    def _mask(self, grid: Grid, spec: CuboidSpec) -> np.ndarray | None:
        mask = cuboid.causal_mask if self.causal else cuboid.attention_mask
        return mask(grid, spec, self.options.padding)

    def _in_cpp(self, x, layers, spec: CuboidSpec, train: bool) -> jax.Array | None:
        """The update without global vectors, or None if it is left to JAX."""
        weights, epsilon = self._native_weights(layers)
        own = self.options
        options = native.Options(
            spec=spec,
            heads=own.num_heads,
            scale=self._scale(x.shape[-1]),
            epsilon=epsilon,
            rate=own.attn_drop,
            out_rate=own.proj_drop,
        )
        if weights is None or not native.suits(x, weights, options):
            return None
        bias = self._bias_table(self.spec.size, self._bias_index(spec))
        return native.self_attention(
            x,
            weights._replace(bias=bias),
            options,
            mask=self._mask(x.shape[1:4], spec),
            key=self._key(train),
            out_key=Dropout(own.proj_drop, train).key(),
        )

    def _native_weights(
        self, layers: dict[str, Any]
    ) -> tuple[native.Weights | None, float]:
        """Weights but for the bias, None for another layer than in C++; epsilon."""
        norm, options = weights_of_norm(layers["norm"]), self.options
        proj = weights_of_dense(layers.get("proj"))
        kernel = weights_of_dense(layers["qkv"], with_bias=False)
        usual = options.implementation == "xla" and options.dtype in (None, jnp.float32)
        usual = usual and not self.is_mutable_collection("intermediates")
        if not usual or norm is None or proj is None or kernel is None:
            return None, 0.0
        (scale, offset, epsilon), (qkv,), (of_result, bias) = norm, kernel, proj
        return native.Weights(scale, offset, qkv, of_result, bias, None), epsilon

    def _layers_of_field(self, features) -> dict[str, Any]:
        layers = dict(
            norm=self._norm("norm").bind_weights(features),
            qkv=self._bind("qkv", features, 3 * features),
        )
        if self.options.use_final_proj:
            layers["proj"] = self._bind("proj", features, features, use_bias=True)
        return layers

    def _layers_between(self, features, width) -> dict[str, Any]:
        """Projections of the field for the global vectors, and for their keys."""
        return dict(
            l2g_q=self._bind("l2g_q", features, features),
            g2l_k=self._bind("g2l_k", features, features),
            g2l_v=self._bind("g2l_v", features, width),
        )

    def _heads_of_vectors(self, features, vectors) -> _Vectors:
        g, width = self._norm("global_norm")(vectors), vectors.shape[-1]

        def heads(name, wide, count=1):
            return self._by_head(self._bind(name, width, count * wide), g, count=count)

        if not self.options.separate_global_qkv:
            query, key, value = heads("global_qkv", features, 3)
            to_global = dict(global_key=key, global_value=value)
            own = to_global if self.options.use_global_self_attn else {}
            return _Vectors(to_global, dict(query=query) | own)
        key, value = heads("l2g_global_kv", features, 2)
        to_global = dict(global_key=key, global_value=value)
        from_global: dict[str, Any] = dict(query=heads("g2l_global_q", features))
        if self.options.use_global_self_attn:
            names = ("global_query", "global_key", "global_value")
            own = heads("g2g_global_qkv", width, 3)
            from_global |= zip(names, own, strict=True)
        return _Vectors(to_global, from_global)

    def _keys_of_sums(self, key, vectors, examples, positions):
        """Keys `[b]` for what `attend_global` drops of positions, and of vectors.

        It draws for all positions of an example, then for its vectors, if they attend
        to themselves.
        """
        if key is None or vectors is None:
            return None, None
        query = vectors.own["query"]
        own = query.shape[1] if "global_key" in vectors.own else 0
        columns = query.shape[1] * query.shape[2]
        start = np.arange(examples) * (positions + own) * columns
        return starting_at(key, start), starting_at(key, start + positions * columns)

    def _sums_of_vectors(self, vectors, scale, key):
        """What the vectors gather from themselves; None if they do not."""
        if "global_key" not in vectors:
            return None
        return global_attention.global_sums(
            vectors.get("global_query", vectors["query"]),
            vectors["global_key"][:, None],
            vectors["global_value"][:, None],
            scale=scale,
            **self._dropout(key),
        )

    def _leave_vectors(self, vectors, train):
        """The function of what global vectors gathered, `[b, g, a, d]`."""
        width = vectors.shape[-1]
        layers = []
        if self.options.use_final_proj:
            project = self._dense(
                "global_proj",
                width,
                use_bias=True,
                kernel_init=initializers.torch_kernel,
                bias_init=initializers.torch_bias(width),
            )
            layers = [project, Dropout(self.options.proj_drop, train)]

        def leave(gathered):
            gathered = einops.rearrange(gathered, "b g a d -> b g (a d)")
            return functools.reduce(lambda x, layer: layer(x), layers, gathered)

        return leave

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


class CuboidCrossAttention(Projections):
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
        cut, memory_cut = self._cuts_of(x, memory)
        axis, pieces = self._pieces(grid, cut, memory_cut)
        divided = train and axis > 1 and parts((x,), pieces) > 1
        reach = (self.max_temporal_relative, *self.spec.size)
        index = attention.relative_position_index(cut.size, memory_cut.size, reach)
        bias = self._bias_table(reach, index, None if divided else x)
        layers = dict(
            norm=self._norm("norm").bind_weights(features),
            q_proj=self._bind("q_proj", features, features),
            kv_proj=self._bind("kv_proj", memory.shape[-1], 2 * features),
            proj=self._bind("proj", features, features, use_bias=True),
        )
        to_global = None
        if global_vectors is not None:
            to_keys, width = layers["kv_proj"], global_vectors.shape[-1]
            if self.options.separate_global_qkv:
                to_keys = self._bind("l2g_global_kv", width, 2 * features)
                layers["l2g_q"] = self._bind("l2g_q", features, features)
            names = ("global_key", "global_value")
            to_global = self._by_head(to_keys, global_vectors, count=2)
            to_global = dict(zip(names, to_global, strict=True))
        key, out_key = self._key(train), Dropout(self.options.proj_drop, train).key()
        shared = _Shared(layers, bias, key, out_key)
        if not divided:
            return self._inside(shared, to_global, x, memory)

        def part(shared, vectors, fields):
            return self._inside(shared, vectors, fields[0], fields[1]), ()

        return in_parts(part, shared, to_global, (x, memory), axis, pieces)[0]

    def _cuts_of(self, *fields):
        """The cuboids of the field and of the memory, or of equal parts of both."""
        grids = [each.shape[1:4] for each in fields]
        split_into = split.parts(fields[0])
        return [self.spec.cuboid(grid).spread(grid, split_into) for grid in grids]

    def _inside(self, shared: _Shared, to_global, x, memory) -> jax.Array:
        """The update of a field, or of whole cuboids of it, as a pure function."""
        layers = shared.layers
        cut, memory_cut = self._cuts_of(x, memory)
        grid, memory_grid = x.shape[1:4], memory.shape[1:4]
        queries = self._cuts(layers["norm"](x), cut)
        memories = self._cuts(memory, memory_cut, time_at_front=True)
        query = self._by_head(layers["q_proj"], *queries)
        key, value = self._by_head(layers["kv_proj"], *memories, count=2)
        to_global = dict(to_global or {})
        if "l2g_q" in layers:
            to_global["global_query"] = self._by_head(layers["l2g_q"], *queries)
        local: dict[str, Any] = dict(
            query=query,
            key=key,
            value=value,
            scale=self._scale(x.shape[-1]),
            bias=shared.bias,
            mask=cuboid.cross_attention_mask(
                grid, cut, memory_grid, memory_cut, self.options.padding
            ),
            implementation=self.options.implementation,
            reordered=cut.reordered(grid),
            **to_global,
            **self._dropout(shared.key),
        )
        self._sow_weights(
            Cut(grid, cut, self.options.padding),
            Cut(memory_grid, memory_cut, self.options.padding, time_at_front=True),
            local,
        )
        out = attend(**local)
        return self._merge_and_project(out, cut, grid, layers["proj"], shared.out_key)
