"""ConvLSTM: an LSTM whose products are convolutions, like Keras's ConvLSTM2D.

    layer = ConvLSTM(filters=64, kernel_size=3, padding="same", return_state=True)
    variables = layer.init(jax.random.key(0), x)        # x [b, t, h, w, c]
    y, h, c = layer.apply(variables, x)
    y, h, c = layer.apply(variables, more, initial_state=(h, c))

The convolution of the input needs no state, so it is applied to all frames at once;
only the convolution of the state is inside the loop.

Reference:
    Shi et al. 2015, Convolutional LSTM Network: A Machine Learning Approach for
    Precipitation Nowcasting. https://arxiv.org/abs/1506.04214
"""

import functools
from collections.abc import Callable, Sequence

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from earthformer_jax.layers.frames import each_frame
from earthformer_jax.models import remat as remat_lib
from earthformer_jax.models.recurrent.recurrence import (
    Recurrence,
    hold,
    lstm_update,
    pair,
)
from earthformer_jax.ops import convolution
from earthformer_jax.ops.dense import add
from earthformer_jax.ops.devices.shared import shared_by_examples
from earthformer_jax.ops.devices.varying import vary_like
from earthformer_jax.ops.tuned.loop_convolution import convolve_in_loop


class ConvLSTM(Recurrence):
    """Convolutional LSTM with the options of Keras's ConvLSTM2D.

    Parameters have Keras's names and layout: "kernel" `[kh, kw, c, 4 filters]`,
    "recurrent_kernel" `[kh, kw, filters, 4 filters]`, "bias" `[4 filters]`, gates
    ordered i, f, c, o. "peephole" `[3, ..., filters]` is an addition.

    A masked frame leaves the state as it is and repeats the last output.
    """

    @nn.compact
    def __call__(
        self,
        inputs: jax.Array | None,
        initial_state: Sequence[jax.Array] | None = None,
        mask: jax.Array | None = None,
        *,
        steps: int | None = None,
        train: bool = False,
    ):
        """Runs over a sequence.

        Args:
            inputs: `[b, t, h, w, c]`, or `[b, t, c, h, w]` with channels first. None:
                `steps` frames of zeros; their kernel is still created, as if they had
                as many channels as the state.
            initial_state: h and c `[b, h', w', filters]` (in the data format); None
                means zeros.
            mask: bool `[b, t]`, False where a frame is to be skipped, or None.
            steps: number of steps, if there are no inputs.
            train: whether to apply dropout (needs the rng "dropout").

        Returns:
            The last output `[b, h', w', filters]`, or all of them
            `[b, t, h', w', filters]` with return_sequences; with return_state the
            tuple (output, h, c).

        Raises:
            ValueError: for inconsistent options or shapes.
        """
        self.check()
        dtype = self._arithmetic(inputs)
        frames, keep = self._input(inputs, mask, steps, dtype)
        if frames is None:
            batch, plane = self._no_input_state(initial_state)
            channels, pads = self.filters, None
        else:
            frames = einops.rearrange(frames, "b t h w c -> t b h w c")
            batch, channels = frames.shape[1], frames.shape[-1]
            pads, plane = self._geometry(*frames.shape[2:4])

        size = pair("kernel_size", self.kernel_size)
        kernel = self.param(
            "kernel",
            self._function("kernel_initializer"),
            (*size, channels, 4 * self.filters),
            self.param_dtype,
        ).astype(dtype)
        recurrent_kernel = self.param(
            "recurrent_kernel",
            self._function("recurrent_initializer"),
            (*size, self.filters, 4 * self.filters),
            self.param_dtype,
        )
        bias = self._bias()
        peephole = self._peephole(plane)
        state = self._first_state(initial_state, batch, plane, dtype)

        if frames is None:
            gates = [jnp.zeros((steps, *state[0].shape), dtype)] * 4
        else:
            drop = self._drop(self.dropout, (4, *frames.shape[1:]), dtype, train)
            gates = self._input_gates(frames, kernel, drop, pads)
        drop = self._drop(self.recurrent_dropout, (4, *state[0].shape), dtype, train)
        weights = dict(
            kernel=recurrent_kernel,
            biases=bias,
            peephole=peephole,
        )
        loop = shared_by_examples(self._loop(plane), axes=(0, 1, 1), out_axes=(0, 1))
        sequence = dict(gates=gates, keep=keep)
        state, outputs = loop(weights, state, sequence, drop)
        return self._output(outputs, state)

    def _loop(self, plane) -> Callable:
        """The loop over time, from weights, state, sequence and dropout's factors.

        The state is a tuple of `[b, h', w', filters]`, the sequence `[t, b, ...]`;
        factors of dropout are `[4, b, ...]`.
        """
        window = functools.partial(
            convolve_in_loop,
            padding=convolution.plane_padding(
                plane, pair("kernel_size", self.kernel_size), "same"
            ),
            wrap=self.wrap,
        )
        activations = (
            self._function("activation"),
            self._function("recurrent_activation"),
        )
        # Only the gates of a step are kept for the backward pass: what follows from
        # them is cheap to recompute.
        policy = remat_lib.policy_of(self.remat, "gates")

        def loop(weights, state, sequence, drop):
            kernel, biases = weights["kernel"], weights["biases"]
            biases = (
                [()] * 4 if biases is None else [(b,) for b in jnp.split(biases, 4)]
            )

            def step(state, frame):
                hidden, cell = state
                # Rounded in every step, so that gradients are summed before that.
                own = kernel.astype(hidden.dtype)
                pushed = _recurrent_gates(window, hidden, own, drop)
                gates = [
                    checkpoint_name(add(x, h, *b), "gates")
                    for x, h, b in zip(frame["gates"], pushed, biases, strict=True)
                ]
                new_hidden, new_cell = lstm_update(
                    gates, cell, weights["peephole"], *activations
                )
                new = (new_hidden.astype(hidden.dtype), new_cell)
                state = hold(frame["keep"], new, state)
                return state, state[0]

            step = jax.checkpoint(step, prevent_cse=False, policy=policy)
            state = vary_like(state, sequence, drop)
            return lax.scan(step, state, sequence, unroll=self.unroll)

        return loop

    def _input_gates(self, frames, kernel, drop, pads):
        """The input's share of each gate, `[t, b, h', w', filters]`.

        Four convolutions of all frames: a step reads one array per gate fastest, and
        dropout gives every gate its own input.
        """
        convolve = functools.partial(
            convolution.convolve,
            padding=pads,
            strides=pair("strides", self.strides),
            dilation=pair("dilation_rate", self.dilation_rate),
            wrap=self.wrap,
        )
        gates = []
        for gate, part in enumerate(jnp.split(kernel, 4, axis=-1)):
            x = frames if drop is None else frames * drop[gate]
            of_part = functools.partial(convolve, kernel=part)
            gates.append(each_frame(of_part, x, time_first=True))
        return gates


def _recurrent_gates(window: Callable, hidden, kernel, drop):
    """The state's share of each gate, `[b, h', w', filters]`."""
    if drop is None:
        return jnp.split(window(hidden, kernel), 4, axis=-1)
    parts = jnp.split(kernel, 4, axis=-1)
    return [window(hidden * d, k) for d, k in zip(drop, parts, strict=True)]
