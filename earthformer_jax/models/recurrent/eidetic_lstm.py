"""The eidetic 3D LSTM: a cell that reads clips and recalls all its past states.

States and inputs are clips `[b, l, h, w, c]` of l frames. In addition to the LSTM's
cell and hidden state there is a memory, which a model passes from layer to layer, and
from the last layer to the first one at the next step, as PredRNN does. Instead of a
forget gate, a gate r queries every cell state since the first one.

Reference:
    Wang et al. 2019, Eidetic 3D LSTM: A Model for Video Prediction and Beyond.
    https://openreview.net/forum?id=B1lKS2AqtX
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from earthformer_jax.layers.dense import Linear
from earthformer_jax.ops.dense import add
from earthformer_jax.ops.global_attention import recall
from earthformer_jax.ops.tuned.loop_convolution import convolve_clips

FORGET_BIAS = 1.0
NORM_EPSILON = 1e-12


class ClipConv(nn.Module):
    """3-D convolution of clips `[b, l, h, w, c]` that keeps their size.

    Attributes:
        features: output channels.
        kernel_size: (time, height, width).
        dtype: computation type; None follows the input.
        param_dtype: parameter type.

    The parameters are "kernel" `[kl, kh, kw, c, features]` and "bias".
    """

    features: int
    kernel_size: Sequence[int] = (2, 5, 5)
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param(
            "kernel",
            nn.initializers.glorot_uniform(),
            (*self.kernel_size, x.shape[-1], self.features),
            self.param_dtype,
        )
        bias = self.param(
            "bias", nn.initializers.zeros, (self.features,), self.param_dtype
        )
        dtype = self.dtype or x.dtype
        y = convolve_clips(x.astype(dtype), kernel.astype(dtype))
        return add(y, bias)


class EideticLSTM(nn.Module):
    """One step of the cell.

    Convolutions that are expensive to recompute are named "gates", for policies of
    `jax.checkpoint`.

    Attributes:
        features: channels of all states.
        kernel_size: (time, height, width) of the convolutions.
        layer_norm: normalise the inputs of the gates, and the cell, per example over
            the whole clip and all channels, with a scale and an offset per channel.
        norm_epsilon: added to the variance. At the first step hidden state and memory
            are zero, so only the biases of their convolutions are normalised: the
            smaller this number, the larger their gradients.
        update_memory: pass on the new memory, as the paper says. The published code
            computes the new one and passes on the old one (False): its memory is always
            zero.
        dtype: computation type; None follows the input. Cell and memory are float32 at
            least.
        param_dtype: parameter type.
    """

    features: int
    kernel_size: Sequence[int] = (2, 5, 5)
    layer_norm: bool = True
    norm_epsilon: float = NORM_EPSILON
    update_memory: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        inputs: jax.Array,
        hidden: jax.Array,
        cell: jax.Array,
        memory: jax.Array,
        history: jax.Array,
        known: jax.Array | int | None = None,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Reads one clip.

        Args:
            inputs: `[b, l, h, w, c]`.
            hidden: `[b, l, h, w, features]`.
            cell: `[b, l, h, w, features]`.
            memory: `[b, l, h, w, features]`.
            history: `[b, s, h, w, features]`: the cell's states up to `cell` itself, in
                sequence; what follows them is ignored.
            known: number of slices of the history that count; None means all.

        Returns:
            New hidden, cell and memory.
        """
        dtype = self.dtype or inputs.dtype
        wide = jnp.promote_types(dtype, jnp.float32)
        gates = {
            name: jnp.split(self._gates(name, number, x), number, axis=-1)
            for name, x, number in (
                ("hidden", hidden, 4),
                ("inputs", inputs, 7),
                ("memory", memory, 4),
            )
        }
        i_h, g_h, r_h, o_h = gates["hidden"]
        i_x, g_x, r_x, o_x, memory_i_x, memory_g_x, memory_f_x = gates["inputs"]
        memory_i, memory_f, memory_g, memory_c = gates["memory"]

        recalled = recall(nn.sigmoid(r_x + r_h), history, known)
        new = nn.sigmoid(i_x + i_h) * jnp.tanh(g_x + g_h)
        cell = self._norm("cell_norm", cell + recalled.astype(wide), wide) + new

        forget = nn.sigmoid(memory_f_x + memory_f + FORGET_BIAS)
        new = nn.sigmoid(memory_i_x + memory_i) * jnp.tanh(memory_g_x + memory_g)
        new_memory = (forget * jnp.tanh(memory_c) + new).astype(wide)

        o_c = self._conv("output_cell", 1, cell)
        o_m = self._conv("output_memory", 1, new_memory)
        gate = nn.sigmoid(jnp.tanh(o_x + o_h + o_c + o_m))
        both = jnp.concatenate([cell, new_memory], axis=-1)
        out = Linear(
            self.features,
            kernel_init=nn.initializers.glorot_uniform(),
            dtype=dtype,
            param_dtype=self.param_dtype,
            name="output",
        )(both)
        return jnp.tanh(out) * gate, cell, new_memory if self.update_memory else memory

    def _gates(self, name, number, x):
        """`number` gates' share of x, `[b, l, h, w, number * features]`."""
        y = self._conv(name, number, x)
        return self._norm(f"{name}_norm", y, y.dtype)

    def _conv(self, name, number, x):
        dtype = self.dtype or x.dtype
        conv = ClipConv(
            number * self.features,
            tuple(self.kernel_size),
            dtype=dtype,
            param_dtype=self.param_dtype,
            name=name,
        )
        return checkpoint_name(conv(x), "gates")

    def _norm(self, name, x, dtype):
        if not self.layer_norm:
            return x
        return nn.LayerNorm(
            epsilon=self.norm_epsilon,
            use_fast_variance=False,
            reduction_axes=(1, 2, 3, 4),
            feature_axes=-1,
            dtype=dtype,
            param_dtype=self.param_dtype,
            name=name,
        )(x)
