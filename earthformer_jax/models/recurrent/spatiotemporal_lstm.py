"""Spatiotemporal LSTM: one cell per layer, and one memory that passes through all.

The memory moves up through the layers within a frame, and from the top layer of one
frame to the bottom layer of the next. All layers therefore have equally many channels.

    stack = SpatiotemporalLSTM(channels=16)
    variables = stack.init(jax.random.key(0), frames, true)
    forecasts, decoupling = stack.apply(variables, frames, true)

Reference:
    Wang et al. 2017, PredRNN: Recurrent Neural Networks for Predictive Learning using
    Spatiotemporal LSTMs (NeurIPS 2017); Wang et al. 2022, PredRNN: A Recurrent Neural
    Network for Spatiotemporal Predictive Learning (the decoupling).
    https://arxiv.org/abs/2103.09504
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.layers import initializers
from earthformer_jax.layers.frames import loop_of_examples
from earthformer_jax.models import remat as remat_lib
from earthformer_jax.ops import convolution
from earthformer_jax.ops.dense import dense
from earthformer_jax.ops.devices import examples
from earthformer_jax.ops.devices.varying import vary_like
from earthformer_jax.ops.tuned.loop_convolution import convolve_in_loop
from earthformer_jax.settings import setting

FORGET_BIAS = 1.0
LAYER_NORM_EPS = 1e-5
_NORM_EPS = 1e-12  # of the length of an increment of the memory


class SpatiotemporalLSTMCell(nn.Module):
    """One layer at one frame.

    Parameters are kernels without biases: "input_kernel" `[k, k, c, 7 features]` for
    the gates i, f, g of the cell, i, f, g of the memory, o; "hidden_kernel"
    `[k, k, features, 4 features]` for i, f, g, o; "memory_kernel"
    `[k, k, features, 3 features]` for i, f, g; "output_kernel"
    `[k, k, 2 features, features]` and "fuse_kernel" `[2 features, features]`.

    Attributes:
        features: channels of the states and of the output.
        kernel_size: side of the windows, odd.
        layer_norm: normalise the convolutions over the whole plane and its channels,
            with a scale and a bias at each position, which fix the size of the plane.
        dtype: computation type; None follows the input. Cell and memory are float32
            at least.
        param_dtype: parameter type.
    """

    features: int
    kernel_size: int = 5
    layer_norm: bool = False
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        hidden: jax.Array,
        cell: jax.Array,
        memory: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array, tuple[jax.Array, jax.Array]]:
        """Reads a frame.

        Args:
            x: `[b, h, w, c]`.
            hidden: output of this layer at the previous frame, `[b, h, w, features]`.
            cell: state of this layer, of the same shape.
            memory: that of the layer below, or for the lowest layer that of the top
                layer at the previous frame; of the same shape.

        Returns:
            (hidden, cell, memory, (increment of the cell, increment of the memory)),
            all `[b, h, w, features]`.
        """
        dtype = self.dtype or jnp.promote_types(x.dtype, jnp.float32)
        both = jnp.promote_types(dtype, jnp.float32)

        x_gates = self.window("input", x.astype(dtype), 7)
        h_gates = self.window("hidden", hidden.astype(dtype), 4)
        m_gates = self.window("memory", memory.astype(dtype), 3)
        x_i, x_f, x_g, x_mi, x_mf, x_mg, x_o = jnp.split(x_gates.astype(both), 7, -1)
        h_i, h_f, h_g, h_o = jnp.split(h_gates.astype(both), 4, -1)
        m_i, m_f, m_g = jnp.split(m_gates.astype(both), 3, -1)

        cell_added = nn.sigmoid(x_i + h_i) * jnp.tanh(x_g + h_g)
        cell = nn.sigmoid(x_f + h_f + FORGET_BIAS) * cell + cell_added
        memory_added = nn.sigmoid(x_mi + m_i) * jnp.tanh(x_mg + m_g)
        memory = nn.sigmoid(x_mf + m_f + FORGET_BIAS) * memory + memory_added

        states = jnp.concatenate([cell, memory], axis=-1).astype(dtype)
        o = nn.sigmoid(x_o + h_o + self.window("output", states, 1).astype(both))
        fuse = self.param(
            "fuse_kernel",
            initializers.torch_kernel,
            (2 * self.features, self.features),
            self.param_dtype,
        ).astype(dtype)
        hidden = o * jnp.tanh(dense(states, fuse).astype(both))
        return hidden.astype(dtype), cell, memory, (cell_added, memory_added)

    def window(self, name, x, gates):
        """Convolution to that many gates at the same size, perhaps normalised."""
        size = (self.kernel_size, self.kernel_size)
        kernel = self.param(
            f"{name}_kernel",
            initializers.torch_kernel,
            (*size, x.shape[-1], gates * self.features),
            self.param_dtype,
        ).astype(x.dtype)
        padding = convolution.plane_padding(x.shape[1:3], size, "same")
        y = convolve_in_loop(x, kernel, padding)
        if not self.layer_norm:
            return y
        return nn.LayerNorm(
            epsilon=LAYER_NORM_EPS,
            reduction_axes=(-3, -2, -1),
            feature_axes=(-3, -2, -1),
            use_fast_variance=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=f"{name}_norm",
        )(y)


class SpatiotemporalLSTM(nn.Module):
    """Layers of cells that forecast each frame from those before it.

    A 1x1 convolution without bias makes the forecast of the next frame from the top
    layer's output.

    Attributes:
        channels: of a forecast, and of the part of a frame that forecasts replace.
        num_layers: cells on top of each other.
        features: channels of every cell.
        kernel_size: side of the cells' windows, odd.
        layer_norm: of the cells.
        decoupling: create the 1x1 convolution that `decoupling_term` applies.
        remat: what is computed again in the backward pass; see `models.remat`.
        dtype: computation type; None follows the input.
        param_dtype: parameter type.
    """

    channels: int
    num_layers: int = 4
    features: int = 128
    kernel_size: int = 5
    layer_norm: bool = False
    decoupling: bool = False
    remat: remat_lib.Remat = setting("none", remat_lib.ACCEPTED)
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        frames: jax.Array,
        true: jax.Array,
        beside: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> tuple[jax.Array, jax.Array]:
        """Reads a sequence and forecasts each of its next frames.

        Args:
            frames: `[b, t, h, w, channels]`.
            true: bool `[b, t, 1, 1, 1]`, or any of h, w, channels in place of a 1:
                where the frame is read (True) or its forecast (False). The first frame
                has no forecast and is read in any case.
            beside: `[b, t, h, w, c]`, appended to the frame's channels; or None.
            train: whether the decoupling is computed.

        Returns:
            Forecasts of the frames 1 ... t, `[b, t, h, w, channels]`; and the mean
            `decoupling_term` of layers and frames, a float32 scalar, 0 unless
            `decoupling` and `train`.
        """
        dtype = self.dtype or jnp.promote_types(frames.dtype, jnp.float32)
        step = remat_lib.recomputed(_Step, self.remat, prevent_cse=False)
        scan = nn.scan(
            step,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            # flax declares one integer, and takes a tree of them.
            out_axes=(1, 0),  # pyright: ignore[reportArgumentType]
        )
        steps = scan(
            channels=self.channels,
            num_layers=self.num_layers,
            features=self.features,
            kernel_size=self.kernel_size,
            layer_norm=self.layer_norm,
            decoupling=self.decoupling,
            compare=self.decoupling and train,
            dtype=dtype,
            param_dtype=self.param_dtype,
            name="step",
        )
        if beside is not None:
            beside = beside.astype(dtype)

        def loop(steps, sequence):
            state = vary_like(self._first_state(sequence[0]), sequence)
            _, (forecasts, decoupling) = steps(state, sequence)
            return forecasts, examples.mean(jnp.mean(decoupling))

        return loop_of_examples(
            loop,
            steps,
            (frames.astype(dtype), true, beside),
            axes=(0,),
            out_axes=(0, None),
        )

    def _first_state(self, frames):
        """Zeros, and the first of the frames `[b, t, h, w, c]`."""
        shape = (frames.shape[0], *frames.shape[2:4], self.features)
        zeros = jnp.zeros(shape, frames.dtype)
        wide = zeros.astype(jnp.promote_types(frames.dtype, jnp.float32))
        return (
            (zeros,) * self.num_layers,
            (wide,) * self.num_layers,
            wide,
            frames[:, 0],
        )


class _Step(nn.Module):
    """All layers at one frame, and the forecast of the next one."""

    channels: int
    num_layers: int
    features: int
    kernel_size: int
    layer_norm: bool
    decoupling: bool
    compare: bool
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, state, inputs):
        hidden, cell, memory, forecast = state
        frame, true, beside = inputs
        x = jnp.where(true, frame, forecast)
        if beside is not None:
            x = jnp.concatenate([x, beside], axis=-1)

        hidden, cell, added = list(hidden), list(cell), []
        for layer in range(self.num_layers):
            hidden[layer], cell[layer], memory, increments = SpatiotemporalLSTMCell(
                self.features,
                self.kernel_size,
                self.layer_norm,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name=f"cell_{layer}",
            )(x, hidden[layer], cell[layer], memory)
            x = hidden[layer]
            added.append(increments)
        forecast = dense(x, self._pointwise("head", self.channels))

        terms = jnp.zeros(self.num_layers, jnp.float32)
        if self.decoupling:
            adapter = self._pointwise("adapter", self.features)
            if self.compare:
                of_cells, of_memories = zip(*added, strict=True)
                terms = decoupling_term(
                    jnp.stack(of_cells), jnp.stack(of_memories), adapter
                )
        return (tuple(hidden), tuple(cell), memory, forecast), (forecast, terms)

    def _pointwise(self, name, channels):
        return self.param(
            f"{name}_kernel",
            initializers.torch_kernel,
            (self.features, channels),
            self.param_dtype,
        ).astype(self.dtype)


def decoupling_term(
    cell_added: jax.Array, memory_added: jax.Array, adapter: jax.Array
) -> jax.Array:
    """How similar the increments of cell and memory are, 0 to 1 (0: orthogonal).

    The adapter is applied to both; the plane of each channel is a vector, and the term
    is the absolute cosine between the two, averaged over examples and channels.

    Args:
        cell_added: `[..., b, h, w, c]`.
        memory_added: of the same shape.
        adapter: `[c, d]`.

    Returns:
        float32 `[...]`. An increment of zeros is orthogonal to all others.

    Reference:
        Wang et al. 2022, the memory decoupling loss. https://arxiv.org/abs/2103.09504
    """
    one, other = (
        dense(x.astype(adapter.dtype), adapter).astype(jnp.float32)
        for x in (cell_added, memory_added)
    )

    def unit(x):
        # The bound below the root: the gradient stays finite where all is zero.
        square = jnp.sum(jnp.square(x), axis=(-3, -2), keepdims=True)
        return x * jax.lax.rsqrt(jnp.maximum(square, _NORM_EPS**2))

    cosine = jnp.sum(unit(one) * unit(other), axis=(-3, -2))
    return jnp.mean(jnp.abs(cosine), axis=(-2, -1))
