"""The global half of Rainformer: Swin blocks, and attention over channels.

Planes are `[b, h, w, c]`. Kernels and biases are initialised as in PyTorch.

Reference:
    Bai et al. 2022, Rainformer: Features Extraction Balanced Network for Radar-Based
    Precipitation Nowcasting, IEEE GRSL 19 (its code is the authority here); Liu et al.
    2021, Swin Transformer. https://arxiv.org/abs/2103.14030
"""

from typing import Any

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from earthformer_jax.layers import initializers
from earthformer_jax.layers.dense import Linear
from earthformer_jax.layers.norm import make_norm
from earthformer_jax.ops import attention, cuboid
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.dense import multiply, widen
from earthformer_jax.ops.devices.varying import varying_axes
from earthformer_jax.ops.tuned.attention import attend
from earthformer_jax.ops.tuned.gelu import gelu

REDUCTION = 16  # channels per hidden unit of the channel attentions
LEAST_HIDDEN = 10  # units of the one after a window attention


def dense(features: int, fan_in: int, *, name: str, use_bias: bool = True, **types):
    """A linear layer, initialised as in PyTorch."""
    return Linear(
        features,
        use_bias=use_bias,
        kernel_init=initializers.torch_kernel,
        bias_init=initializers.torch_bias(fan_in),
        name=name,
        **types,
    )


def maximum(x: jax.Array, axis: int) -> jax.Array:
    """The largest value along an axis, with a gradient at one position only.

    The gradient of `jnp.max` goes to all positions equal to the maximum, and is 0 / 0
    if the compiler computes `x` twice and rounds it differently.
    """
    index = jnp.argmax(jax.lax.stop_gradient(x), axis, keepdims=True)
    others = [a for a in range(x.ndim) if a != axis % x.ndim]
    position = jnp.expand_dims(jnp.arange(x.shape[axis]), others)
    return jnp.where(position == index, x, 0).sum(axis)


def window_mask(plane: tuple[int, int], window: int) -> np.ndarray | None:
    """bool `[n, q, s]`: True where positions of a shifted window were neighbours.

    Computed once for every (h, w) of the plane and side of the windows; None if all
    positions that share a window were neighbours.
    """
    return cuboid.attention_mask((1, *plane), _cut(window, shifted=True), "zeros")


def _cut(window, shifted):
    """Windows as cuboids of one frame; half a window of shift, rounded down."""
    step = window // 2 if shifted else 0
    return CuboidSpec((1, window, window), shift=(0, step, step))


class ChannelAttention(nn.Module):
    """`x * sigmoid(f(mean of the plane) + g(maximum of the plane))`.

    f and g are perceptrons with one hidden layer. The reference has two such modules:
    after every window attention f and g differ, in CASA they are the same.

    Attributes:
        shared: whether f and g are the same. The hidden width is C // 16, or C if that
            is 0 (shared) or less than 10 (not shared).
        dtype: computation type; None follows the input.
        param_dtype: parameter type.
    """

    shared: bool
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, h, w, c]` to the same."""
        features = x.shape[-1]
        least = 1 if self.shared else LEAST_HIDDEN
        hidden = features // REDUCTION
        hidden = hidden if hidden >= least else features
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)

        def perceptron(name):
            up = dense(hidden, features, name=f"{name}_hidden", **types)
            down = dense(features, hidden, name=f"{name}_out", **types)
            return lambda pooled: down(nn.relu(up(pooled)))

        positions = einops.rearrange(x, "b h w c -> b (h w) c")
        mean, largest = positions.mean(1), maximum(positions, 1)
        if self.shared:
            of_mean = of_largest = perceptron("mlp")
        else:
            of_mean, of_largest = perceptron("mean"), perceptron("max")
        gain = nn.sigmoid(of_mean(mean) + of_largest(largest))
        self.sow("intermediates", "gain", gain)
        return multiply(x, gain[:, None, None])


class WindowAttention(nn.Module):
    """Self-attention inside square windows, then attention over channels.

    Attributes:
        heads: number of attention heads.
        head_dim: width of a head; heads * head_dim need not be the channels.
        window: side of the windows; divides the plane.
        shifted: roll the plane by half a window before it is cut. Positions that share
            a window only because of that do not attend to each other.
        relative_position: one bias for every offset between key and query, the same for
            all heads; otherwise one for every pair of positions in a window.
        dtype: computation type; None follows the input.
        param_dtype: parameter type.
    """

    heads: int
    head_dim: int
    window: int
    shifted: bool
    relative_position: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, h, w, c]` to the same.

        Raises:
            ValueError: if the windows do not fill the plane.
        """
        _, h, w, features = x.shape
        if h % self.window or w % self.window:
            raise ValueError(
                f"windows of side {self.window} do not fill a plane of {(h, w)}; use "
                "a window that divides both"
            )
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        spec, grid = _cut(self.window, self.shifted), (1, h, w)

        inner = self.heads * self.head_dim
        qkv = dense(3 * inner, features, name="qkv", use_bias=False, **types)(x)
        windows = cuboid.decompose(qkv[:, None], spec, "zeros")
        query, key, value = einops.rearrange(
            windows, "b n q (three a d) -> three b n q a d", three=3, a=self.heads
        )
        attended = attend(
            query,
            key,
            value,
            scale=self.head_dim**-0.5,
            bias=self._bias(spec)[None],
            mask=window_mask((h, w), self.window) if self.shifted else None,
        )
        attended = einops.rearrange(attended, "b n q a d -> b n q (a d)")
        y = cuboid.merge(attended, spec, grid, "zeros")[:, 0]
        y = dense(features, inner, name="out", **types)(y)
        return ChannelAttention(shared=False, name="channel_attention", **types)(y)

    def _bias(self, spec):
        """`[q, s]` added to the scores."""
        init = nn.initializers.normal(1.0)
        if not self.relative_position:
            shape = (spec.volume, spec.volume)
            return self.param("position_bias", init, shape, self.param_dtype)
        shape = (2 * self.window - 1,) * 2
        table = self.param("position_bias", init, shape, self.param_dtype)
        # The table counts offsets from query to key, the index from key to query.
        index = attention.relative_position_index(spec.size, spec.size, spec.size).T
        return widen(table).reshape(-1)[index]


class SwinBlock(nn.Module):
    """`x + attention(norm(x))`, then `x + perceptron(norm(x))` with an exact GELU.

    Attributes:
        hidden: width inside the perceptron.
        heads: number of attention heads.
        head_dim: width of a head.
        window: side of the windows.
        shifted: roll the plane by half a window.
        relative_position: as in `WindowAttention`.
        dtype: computation type; None follows the input.
        param_dtype: parameter type.
    """

    hidden: int
    heads: int
    head_dim: int
    window: int
    shifted: bool
    relative_position: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, h, w, c]` to the same."""
        features = x.shape[-1]
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        attend = WindowAttention(
            self.heads,
            self.head_dim,
            self.window,
            self.shifted,
            self.relative_position,
            name="attention",
            **types,
        )
        x = x + attend(make_norm("layer_norm", name="attention_norm", **types)(x))
        y = make_norm("layer_norm", name="ffn_norm", **types)(x)
        y = dense(self.hidden, features, name="ffn_1", **types)(y)
        # JAX 0.12 has no derivative of its exact GELU for what varies in a shard_map.
        y = gelu(y) if varying_axes(y) else nn.gelu(y, approximate=False)
        return x + dense(features, self.hidden, name="ffn_2", **types)(y)
