"""E3D-LSTM: a stack of eidetic 3D LSTM cells that feeds its forecasts back.

Every step reads a clip of the last frames, in patches, and predicts the next frame. A
memory passes up through the layers of a step and on to the first layer of the next one.
The context is predicted as well, and counts in the loss; after it the stack reads its
own predictions or, in training, some of the true frames.

On SEVIR's large frames it works on latents of a convolutional encoder: true frames are
encoded, predictions are fed back as latents, and a decoder turns them into frames.

The default is E3D-LSTM as in the comparison of Earthformer, 12,898,832 parameters for
frames of one channel (the paper says 12.9 million); with the latents for SEVIR there
are 35,645,297 (35.6 million).

Reference:
    Wang et al. 2019, Eidetic 3D LSTM: A Model for Video Prediction and Beyond.
    https://openreview.net/forum?id=B1lKS2AqtX; Gao et al. 2022, Earthformer, table 11.
    https://arxiv.org/abs/2207.05833 (the latents for SEVIR)
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from earthformer_jax.checks import NONE, check_fields, each, either
from earthformer_jax.layers import frame_coder
from earthformer_jax.layers.dense import Linear
from earthformer_jax.layers.frames import loop_of_examples
from earthformer_jax.models import remat as remat_lib
from earthformer_jax.models.recurrent import scheduled_sampling
from earthformer_jax.models.recurrent.eidetic_lstm import NORM_EPSILON, EideticLSTM
from earthformer_jax.models.shapes import check_shapes
from earthformer_jax.ops.devices.varying import vary_like
from earthformer_jax.ops.patches import reshape_patch, reshape_patch_back
from earthformer_jax.settings import FRACTION, NOT_NEGATIVE, at_least, setting


class Step(nn.Module):
    """Reads one frame and predicts the next one: all layers and the head.

    Attributes:
        channels: of the predicted frame.
        cells: arguments of the `EideticLSTM` of every layer.
    """

    channels: int
    cells: Mapping[str, Any]

    @nn.compact
    def __call__(self, state, frame):
        """One step of the scan.

        Args:
            state: number of the step, prediction `[b, h, w, channels]`, frames read
                before `[b, window - 1, h, w, c]`, memory `[b, window, h, w, f]`, and of
                every layer hidden, cell (as the memory), history `[b, s, h, w, f]`.
            frame: the true "frame" `[b, h, w, channels]`; "given", bool of that shape
                or `[b, 1, 1, 1]`, whether it is read; "further" channels
                `[b, h, w, c]`, always read.

        Returns:
            The state, and the prediction in it.
        """
        number, prediction, seen, memory, states = state
        x = jnp.where(frame["given"], frame["frame"], prediction)
        x = jnp.concatenate([x, frame["further"]], axis=-1)
        clip = jnp.concatenate([seen, x[:, None]], axis=1)

        window = clip.shape[1]
        y, new_states = clip, []
        for layer, (hidden, cell, history) in enumerate(states):
            history = lax.dynamic_update_slice_in_dim(
                history, cell.astype(history.dtype), number * window, axis=1
            )
            y, cell, memory = EideticLSTM(**self.cells, name=f"cell_{layer}")(
                y, hidden, cell, memory, history, (number + 1) * window
            )
            new_states.append((y, cell, history))

        head = Linear(
            self.channels,
            axes=2,
            kernel_init=nn.initializers.glorot_uniform(),
            dtype=self.cells["dtype"],
            param_dtype=self.cells["param_dtype"],
            name="head",
        )
        prediction = head(jnp.moveaxis(y, 1, -2))
        state = (number + 1, prediction, clip[:, 1:], memory, tuple(new_states))
        return state, prediction


class E3DLSTM(nn.Module):
    """Forecaster of stacked eidetic 3D LSTM cells.

    The sampling schedule follows the length of the training: its second half has no
    true frames after the context. The published schedule of 50,000 steps is used by
    trainings of 100,000 steps or more.

    Attributes:
        input_shape: (T, H, W, C_in).
        target_shape: (K, H, W, C_out), C_out at most C_in: the first channels of the
            inputs are forecast and fed back. The others stay as in the last input
            frame; with downsampling only the latents of true frames contain them.
            Planes that patches and latents do not divide are padded with zeros at the
            end, and the forecast is cropped.
        num_layers: cells on top of each other.
        features: channels of every cell.
        window: frames of a clip.
        kernel_size: (time, height, width) of the cells' convolutions.
        patch: side of the patches that become channels. Every position is compared
            with those of all steps, so large frames need patches.
        layer_norm: normalise gates and cells.
        norm_epsilon: added to the variance, see `EideticLSTM`.
        update_memory: False is the published code, whose memory stays zero.
        downsampling: factor by which the sides of the latents are smaller, a power of
            two; 1 is without encoder.
        sampling_start: initial probability of reading a true frame after the context,
            in training.
        sampling_rate: its decrease per step; None: 0 is reached at `sampling_stop`.
        sampling_stop: number of the first step without true frames; None: half of the
            training, at most 50,000.
        absolute_weight: weight of absolute errors relative to squared ones. 2 gives the
            published loss, up to a factor.
        context_weight: weight of the predicted frames of the context relative to the
            forecast ones; 1 as in the published loss.
        remat: what is computed again in the backward pass; see `models.remat`.
            Otherwise the convolutions are kept, and only the rest is recomputed.
        dtype: computation type; None means float32.
        param_dtype: parameter type.
    """

    uses_targets = True

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]
    num_layers: int = setting(4, at_least(1))
    features: int = setting(64, at_least(1))
    window: int = setting(2, at_least(1))
    kernel_size: Sequence[int] = setting((2, 5, 5), each(at_least(1), 3))
    patch: int = setting(4, at_least(1))
    layer_norm: bool = True
    norm_epsilon: float = setting(NORM_EPSILON, NOT_NEGATIVE)
    update_memory: bool = True
    downsampling: int = setting(1, at_least(1))
    sampling_start: float = setting(1.0, FRACTION)
    sampling_rate: float | None = setting(None, either(NOT_NEGATIVE, NONE))
    sampling_stop: int | None = setting(None, either(at_least(0), NONE))
    absolute_weight: float = setting(2.0, NOT_NEGATIVE)
    context_weight: float = setting(1.0, NOT_NEGATIVE)
    remat: remat_lib.Remat = setting("none", remat_lib.ACCEPTED)
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def check(self) -> None:
        """Raises ValueError for inconsistent options."""
        check_shapes(self.input_shape, self.target_shape)
        check_fields(self)
        if self.target_shape[-1] > self.input_shape[-1]:
            raise ValueError(
                "forecasts are fed back as inputs, so targets need the first channels "
                f"of the inputs; got {self.input_shape[-1]} channels of inputs and "
                f"{self.target_shape[-1]} of targets"
            )
        if self.downsampling != 1:
            frame_coder.stage_features(self.downsampling)

    @nn.compact
    def __call__(
        self,
        inputs: jax.Array,
        *,
        train: bool = False,
        targets: jax.Array | None = None,
        weights: jax.typing.ArrayLike | None = None,
        input_weights: jax.typing.ArrayLike | None = None,
        step: jax.Array | int | None = None,
        total_steps: int | None = None,
    ) -> jax.Array:
        """Forecasts the next frames.

        Args:
            inputs: `[b, T, H, W, C_in]`.
            train: whether to sow losses and, given targets, to read some true frames
                after the context (needs the rng "sampling").
            targets: `[b, K, H, W, C_out]`, the true frames; values that are not finite
                are unknown.
            weights: of the targets in the loss, see `models.contract.Pupil`. Values
                with weight 0 are never read; the prediction is, in their place.
            input_weights: the same for the inputs' first C_out channels.
            step: optimiser steps taken so far; needed with targets.
            total_steps: planned length of the training, which the sampling follows.

        Returns:
            float32 `[b, K, H, W, C_out]`.

        Raises:
            ValueError: for inconsistent options, or arrays of other shapes.
        """
        self.check()
        _check_shape("inputs", inputs, self.input_shape)
        if not train:
            targets = None
        if targets is not None:
            _check_shape("targets", targets, self.target_shape)
            if step is None:
                raise ValueError("targets need step, the optimiser steps taken so far")
            known = jnp.isfinite(targets)
            weights = jnp.where(known, 1 if weights is None else weights, 0)
        dtype = self.dtype or jnp.promote_types(inputs.dtype, jnp.float32)
        frames, further = self._read(inputs, targets, weights)
        given = self._given(inputs.shape[0], targets, weights, step, total_steps)
        predictions = self._roll(frames.astype(dtype), further.astype(dtype), given)

        context, (height, width) = self.input_shape[0] - 1, self.input_shape[1:3]
        learns = train and self.context_weight > 0
        shown = predictions if learns else predictions[:, context:]
        shown = self._show(shown)[:, :, :height, :width]
        shown = shown.astype(jnp.promote_types(dtype, jnp.float32))
        forecast = shown[:, -self.target_shape[0] :]
        if train:
            self._sow_losses(shown, inputs, targets, weights, input_weights)
        return forecast

    def teaching_probability(self, step: Any, total_steps: int | None) -> jax.Array:
        """Probability that a true frame is read in place of a prediction."""
        schedule = scheduled_sampling.forward_schedule(
            total_steps, self.sampling_start, self.sampling_rate, self.sampling_stop
        )
        return scheduled_sampling.forward_probability(step, **schedule)

    def _read(self, inputs, targets, weights):
        """Frames that the stack reads, and their further channels, for each step.

        Args:
            inputs: `[b, T, H, W, C_in]`.
            targets: `[b, K, H, W, C_out]` or None.
            weights: of the targets.

        Returns:
            `[b, T + K - 1, h, w, c]` and `[b, T + K - 1, h, w, c']`; frames that are
            not given are zero.
        """
        ahead, channels = self.target_shape[0] - 1, self.target_shape[-1]
        if targets is not None and ahead:
            last = jnp.repeat(inputs[:, -1:, ..., channels:], ahead, axis=1)
            true, _ = scheduled_sampling.readable(
                targets, weights, inputs[:, -1:, ..., :channels]
            )
            true = true[:, :ahead].astype(inputs.dtype)
            true = jnp.concatenate([true, last], axis=-1)
            inputs = jnp.concatenate([inputs, true], axis=1)
        unit = self.patch * self.downsampling
        grow = [(0, -size % unit) for size in inputs.shape[2:4]]
        inputs = jnp.pad(inputs, ((0, 0), (0, 0), *grow, (0, 0)))
        if self.downsampling > 1:
            inputs = frame_coder.FrameEncoder(
                frame_coder.stage_features(self.downsampling),
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name="encoder",
            )(inputs)
            channels = inputs.shape[-1]
        frames, further = (
            reshape_patch(x, self.patch)
            for x in (inputs[..., :channels], inputs[..., channels:])
        )
        missing = self.input_shape[0] + ahead - inputs.shape[1]
        grow = ((0, 0), (0, missing), (0, 0), (0, 0), (0, 0))
        return jnp.pad(frames, grow), jnp.pad(further, grow, mode="edge")

    def _given(self, batch, targets, weights, step, total_steps):
        """bool `[b, T + K - 1, h, w, c]`, or 1 for h, w, c: where the truth is read."""
        context, ahead = self.input_shape[0], self.target_shape[0] - 1
        given = jnp.arange(context + ahead) < context
        given = jnp.broadcast_to(given, (batch, context + ahead))
        if targets is not None and ahead:
            probability = self.teaching_probability(step, total_steps)
            key = self.make_rng("sampling")
            drawn = scheduled_sampling.draw(key, probability, batch, ahead)
            given = given.at[:, context:].set(drawn)
        given = given[..., None, None, None]
        if targets is None or not ahead:
            return given
        known = jnp.broadcast_to(jnp.asarray(weights) > 0, targets.shape)[:, :ahead]
        known = scheduled_sampling.known_patches(known, self.patch, self.downsampling)
        grow = ((0, 0), (context, 0), (0, 0), (0, 0), (0, 0))
        return given & jnp.pad(known, grow, constant_values=True)

    def _roll(self, frames, further, given):
        """`[b, T + K - 1, h, w, c]`: at each step the prediction of the next frame."""
        dtype = frames.dtype
        cells = dict(
            features=self.features,
            kernel_size=tuple(self.kernel_size),
            layer_norm=self.layer_norm,
            norm_epsilon=self.norm_epsilon,
            update_memory=self.update_memory,
            dtype=dtype,
            param_dtype=self.param_dtype,
        )
        # Only the convolutions of a step are kept for the backward pass. The weights of
        # the recall, one for every pair of positions, would be far too many.
        policy = remat_lib.policy_of(self.remat, "gates")
        scan = nn.scan(
            nn.remat(Step, prevent_cse=False, policy=policy),
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
        )

        def loop(steps, sequence):
            frames, further = sequence["frame"], sequence["further"]
            state = vary_like(self._first_state(frames, further), sequence)
            return steps(state, sequence)[1:]

        (predictions,) = loop_of_examples(
            loop,
            scan(frames.shape[-1], cells, name="step"),
            dict(frame=frames, further=further, given=given),
            axes=(0,),
            out_axes=(0,),
        )
        return predictions

    def _first_state(self, frames, further):
        """Zeros, before the first of the frames `[b, t, h, w, c]`."""
        dtype, wide = frames.dtype, jnp.promote_types(frames.dtype, jnp.float32)
        batch, steps, *plane, channels = frames.shape
        read = channels + further.shape[-1]
        shape = (batch, self.window, *plane, self.features)
        history = (batch, steps * self.window, *plane, self.features)
        return (
            jnp.zeros((), jnp.int32),
            jnp.zeros((batch, *plane, channels), dtype),
            jnp.zeros((batch, self.window - 1, *plane, read), dtype),
            jnp.zeros(shape, wide),
            tuple(
                (
                    jnp.zeros(shape, dtype),
                    jnp.zeros(shape, wide),
                    jnp.zeros(history, dtype),
                )
                for _ in range(self.num_layers)
            ),
        )

    def _show(self, predictions):
        """Predictions of the stack `[b, k, h, w, c]` as frames."""
        frames = reshape_patch_back(predictions, self.patch)
        if self.downsampling == 1:
            return frames
        return frame_coder.FrameDecoder(
            frame_coder.mirrored_features(self.downsampling, self.target_shape[-1]),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="decoder",
        )(frames)

    def _sow_losses(self, shown, inputs, targets, weights, input_weights):
        """Absolute errors of the forecast, and all errors of the predicted context.

        Each is weighted, summed and divided by the number of forecast values.
        """
        known_error, weighted = (
            scheduled_sampling.known_error,
            scheduled_sampling.weighted,
        )
        ahead, *_, channels = self.target_shape
        values = inputs.shape[0] * math.prod(self.target_shape)
        if targets is not None and self.absolute_weight:
            error = jnp.abs(known_error(shown[:, -ahead:], targets, weights))
            loss = self.absolute_weight * jnp.sum(weighted(error, weights)) / values
            self.sow("losses", "absolute", loss)
        if self.context_weight:
            context = inputs[..., :channels]
            if input_weights is not None:
                input_weights = jnp.broadcast_to(
                    jnp.asarray(input_weights), context.shape
                )[:, 1:]
            error = known_error(shown[:, :-ahead], context[:, 1:], input_weights)
            loss = jnp.square(error) + self.absolute_weight * jnp.abs(error)
            loss = jnp.sum(weighted(loss, input_weights))
            self.sow("losses", "context", self.context_weight * loss / values)


def _check_shape(name, array, shape):
    if tuple(array.shape[1:]) != tuple(shape):
        raise ValueError(
            f"{name} need shape (batch, {', '.join(map(str, shape))}), that is (batch, "
            f"time, height, width, channel); got {tuple(array.shape)}"
        )
