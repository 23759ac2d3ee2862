"""PredRNN: spatiotemporal LSTMs that read each frame and forecast the next one.

Frames enter in patches whose pixels are channels. The network runs over context and
forecast: after the context it reads its own forecasts. In training it reads true frames
in place of some of them, as scheduled sampling draws them.

The default is PredRNN as in the comparison of Earthformer, 23,838,720 parameters (the
paper says 23.8 million) for any size of the plane. On SEVIR a small convolutional
encoder shrinks the frames, and its latents are forecast and decoded: 46,584,177
parameters (46.6 million).

Reference:
    Wang et al. 2017, PredRNN: Recurrent Neural Networks for Predictive Learning using
    Spatiotemporal LSTMs (NeurIPS 2017); Wang et al. 2022, PredRNN: A Recurrent Neural
    Network for Spatiotemporal Predictive Learning (V2).
    https://arxiv.org/abs/2103.09504; Gao et al. 2022, Earthformer, table 11.
    https://arxiv.org/abs/2207.05833
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from earthformer_jax.checks import NONE, check_fields, either
from earthformer_jax.layers.frame_coder import (
    FrameDecoder,
    FrameEncoder,
    mirrored_features,
    stage_features,
)
from earthformer_jax.models import remat as remat_lib
from earthformer_jax.models.recurrent import scheduled_sampling
from earthformer_jax.models.recurrent.spatiotemporal_lstm import SpatiotemporalLSTM
from earthformer_jax.models.shapes import check_inputs, check_shapes
from earthformer_jax.ops.patches import reshape_patch, reshape_patch_back
from earthformer_jax.settings import FRACTION, NOT_NEGATIVE, POSITIVE, at_least, setting

# Options of PredRNN-V2.
V2 = dict(decoupling=True, reverse_sampling=True)


class PredRNN(nn.Module):
    """Forecaster of spatiotemporal LSTMs, version 1 or (with `V2`) 2.

    If the inputs have more channels than the targets, the targets' channels come first.
    The others are appended to every forecast that is fed back, as they were in the last
    input frame; with downsampling they are encoded with the frame, and during the
    forecast only the latents carry them.

    The sampling schedules follow the length of the training: its second half has no
    true frames after the context. The published schedules of 50,000 steps are used by
    trainings of 100,000 steps or more.

    Attributes:
        input_shape: (T, H, W, C_in).
        target_shape: (K, H, W, C_out), C_out at most C_in. Planes that `patch` times
            `downsampling` does not divide are padded with zeros at the end, and the
            forecast is cropped.
        num_layers: cells on top of each other.
        features: channels of every cell.
        kernel_size: odd side of the cells' kernels.
        patch: side of the patches in pixels (of the latents, with downsampling).
        layer_norm: normalise the gates; the parameters then depend on the plane.
        downsampling: factor by which the sides of the latents are smaller, a power of
            two; 1 forecasts the frames themselves.
        context_weight: of the loss of the input frames' forecasts, see `__call__`.
        decoupling: whether to add the decoupling term to the loss (V2).
        decoupling_weight: of that term.
        reverse_sampling: use the reverse schedule (V2): true frames become more
            frequent in the context and rarer after it.
        sampling_start: initial probability of true frames (forward schedule).
        sampling_rate: its decrease per step; None: 0 is reached at `sampling_stop`.
        sampling_stop: number of the first step without true frames; None: half of the
            training, at most 50,000.
        reverse_begin: steps until the reverse schedule leaves one half; None: half of
            `reverse_end`.
        reverse_end: number of the first step whose sampling is that of a forecast;
            None: half of the training, at most 50,000.
        reverse_decay: time scale in steps of the increase of true frames in the
            context; None: a tenth of `reverse_end`.
        reverse_input: learn from every sequence backward in time as well, as in the
            published training; its loss is added. Frames need the channels of the
            targets, and no more.
        remat: what is computed again in the backward pass; see `models.remat`.
        dtype: computation type; None means float32.
        param_dtype: parameter type.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]
    num_layers: int = setting(4, at_least(1))
    features: int = setting(128, at_least(1))
    kernel_size: int = setting(5, at_least(1))
    patch: int = setting(4, at_least(1))
    layer_norm: bool = False
    downsampling: int = setting(1, at_least(1))
    context_weight: float = setting(1.0, NOT_NEGATIVE)
    decoupling: bool = False
    decoupling_weight: float = setting(0.1, NOT_NEGATIVE)
    reverse_sampling: bool = False
    sampling_start: float = setting(1.0, FRACTION)
    sampling_rate: float | None = setting(None, either(NOT_NEGATIVE, NONE))
    sampling_stop: int | None = setting(None, either(at_least(0), NONE))
    reverse_begin: int | None = setting(None, either(at_least(0), NONE))
    reverse_end: int | None = setting(None, either(at_least(0), NONE))
    reverse_decay: float | None = setting(None, either(POSITIVE, NONE))
    reverse_input: bool = False
    remat: remat_lib.Remat = setting("none", remat_lib.ACCEPTED)
    dtype: Any = None
    param_dtype: Any = jnp.float32

    uses_targets = True

    def check(self) -> None:
        """Raises ValueError for inconsistent options."""
        check_shapes(self.input_shape, self.target_shape)
        check_fields(self)
        if self.target_shape[-1] > self.input_shape[-1]:
            raise ValueError(
                "a forecast is read as the next input, so the inputs need all channels "
                f"of the targets; got {self.input_shape[-1]} and "
                f"{self.target_shape[-1]} channels"
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(
                "kernel_size must be odd, so that the states keep their size; got "
                f"{self.kernel_size}"
            )
        if self.reverse_input and self.target_shape[-1] != self.input_shape[-1]:
            raise ValueError(
                "reverse_input=True reads targets as inputs, which therefore need the "
                f"same channels; got {self.input_shape[-1]} and "
                f"{self.target_shape[-1]} channels"
            )
        if self.downsampling != 1:
            stage_features(self.downsampling)
        end = self.reverse_end
        if end is not None and end < (self.reverse_begin or 0):
            raise ValueError(
                f"reverse_end={self.reverse_end} must not come before "
                f"reverse_begin={self.reverse_begin}"
            )

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

        With `train` two terms are sown into "losses". Added to the mean squared error
        of the K forecast frames, they give (T + K - 1) / K times the published loss,
        the mean over the forecasts of all frames but the first:

            context: context_weight (T - 1) / K times the error of the input frames;
            decoupling: decoupling_weight (T + K - 1) / K times the decoupling.

        With `reverse_input` the same loss of the reversed sequence is added, most of it
        as "reversed". The decoupling is that of both.

        Args:
            inputs: `[b, T, H, W, C_in]`.
            train: whether to train; needs targets, step and the rng "sampling".
            targets: `[b, K, H, W, C_out]`, the true frames.
            weights: of the targets in the loss, see `models.contract.Pupil`. Values
                with weight 0 are never read; the forecast is, in their place.
            input_weights: the same for the inputs' first C_out channels.
            step: optimiser steps taken so far, on which the sampling depends.
            total_steps: planned length of the training, which it follows.

        Returns:
            float32 `[b, K, H, W, C_out]`.

        Raises:
            ValueError: for inconsistent options, inputs or targets of
                another shape than the model's, or without targets and step in training.
        """
        self.check()
        targets = targets if train else None
        self._check_arrays(inputs, train, targets, step)
        dtype = self.dtype or jnp.promote_types(inputs.dtype, jnp.float32)
        context, height, width, _ = self.input_shape

        seen, known, truth, truth_weights = inputs.astype(dtype), None, None, None
        true = self._true(inputs.shape[0], train, step, total_steps)[
            ..., None, None, None
        ]
        if targets is not None:
            seen, known, truth, truth_weights = self._sequence(
                inputs, targets, weights, input_weights
            )
            seen = seen.astype(dtype)
            true = jnp.tile(true, (len(seen) // len(true), 1, 1, 1, 1))
        whole = self.downsampling * self.patch
        grow = [(0, -size % whole) for size in (height, width)]
        seen = jnp.pad(seen, ((0, 0), (0, 0), *grow, (0, 0)))

        types: dict[str, Any] = dict(dtype=dtype, param_dtype=self.param_dtype)
        frames, beside = self._patches(seen, types)
        if known is not None:
            true = true & scheduled_sampling.known_patches(
                known, self.patch, self.downsampling
            )
        if self.downsampling == 1 and any(map(sum, grow)):
            true = true | self._outside(grow)

        forecasts, decoupling = SpatiotemporalLSTM(
            channels=frames.shape[-1],
            num_layers=self.num_layers,
            features=self.features,
            kernel_size=self.kernel_size,
            layer_norm=self.layer_norm,
            decoupling=self.decoupling,
            remat=self.remat,
            name="recurrence",
            **types,
        )(frames, true, beside, train=train)

        if not train:
            forecasts = forecasts[:, context - 1 :]
        forecasts = self._frames(forecasts, types)
        forecasts = forecasts.astype(jnp.promote_types(dtype, jnp.float32))
        if train:
            self._sow_losses(forecasts, truth, truth_weights, decoupling)
        return forecasts[: inputs.shape[0], -self.target_shape[0] :]

    def teaching_probability(self, step: Any, total_steps: int | None) -> jax.Array:
        """Probability that a true frame is read in place of a forecast one."""
        return self._probabilities(step, total_steps)[1]

    def _probabilities(self, step, total_steps):
        """Those of true frames in the context, and among the forecast ones."""
        if self.reverse_sampling:
            schedule = scheduled_sampling.reverse_schedule(
                total_steps, self.reverse_begin, self.reverse_end, self.reverse_decay
            )
            return scheduled_sampling.reverse_probabilities(step, **schedule)
        schedule = scheduled_sampling.forward_schedule(
            total_steps, self.sampling_start, self.sampling_rate, self.sampling_stop
        )
        return None, scheduled_sampling.forward_probability(step, **schedule)

    def _sequence(self, inputs, targets, weights, input_weights):
        """What is read and learned in training; B is b, or 2 b with `reverse_input`.

        Returns:
            Frames to read `[B, T + K - 1, H, W, C_in]`; where they are known, bool
            `[B, T + K - 1, H, W, C_out]` or None; and their successors, the truth, with
            its weights or None, `[B, T + K - 1, H, W, C_out]`.
        """
        context, channels = inputs.shape[1], targets.shape[-1]
        inputs, further = inputs[..., :channels], inputs[..., channels:]
        readable, known = scheduled_sampling.readable(targets, weights, inputs[:, -1:])
        frames, truth = (
            jnp.concatenate([inputs, later], axis=1) for later in (readable, targets)
        )
        if known is not None:
            grow = ((0, 0), (context, 0), (0, 0), (0, 0), (0, 0))
            known = jnp.pad(known, grow, constant_values=True)
        shares = None
        if weights is not None or input_weights is not None:
            parts = (input_weights, inputs), (weights, targets)
            shares = jnp.concatenate(
                [
                    jnp.broadcast_to(1.0 if w is None else jnp.asarray(w), x.shape)
                    for w, x in parts
                ],
                axis=1,
            )
        if self.reverse_input:
            frames, truth = (_with_reversed(x) for x in (frames, truth))
        if self.reverse_input and shares is not None:
            # Backward in time even the context has unknown values that nobody has
            # filled in; the first frame has no forecast to replace them.
            forward = jnp.ones(shares.shape, bool) if known is None else known
            backward = jnp.flip(shares > 0, axis=1).at[:, 0].set(True)
            known = jnp.concatenate([forward, backward])
            shares = _with_reversed(shares)
        # The last frame is never read.
        if further.size:
            grow = ((0, 0), (0, frames.shape[1] - context), (0, 0), (0, 0), (0, 0))
            frames = jnp.concatenate([frames, jnp.pad(further, grow, "edge")], axis=-1)
        return (
            frames[:, :-1],
            None if known is None else known[:, :-1],
            truth[:, 1:],
            None if shares is None else shares[:, 1:],
        )

    def _patches(self, seen, types):
        """What the recurrence reads: patches of `[b, t, h, w, c]`, two sequences.

        Those of the channels that are forecast, zeros after the last frame, and of the
        other channels, which keep their last values, or None.
        """
        beside, channels = None, self.target_shape[-1]
        if self.downsampling > 1:
            stages = stage_features(self.downsampling)
            seen = FrameEncoder(stages, name="encoder", **types)(seen)
        elif seen.shape[-1] > channels:
            seen, beside = seen[..., :channels], seen[..., channels:]
            beside = reshape_patch(self._lengthen(beside, "edge"), self.patch)
        return reshape_patch(self._lengthen(seen, "constant"), self.patch), beside

    def _frames(self, forecasts, types):
        """Frames `[b, t, H, W, C_out]` of the patches that the recurrence returns."""
        height, width, channels = self.target_shape[1:]
        frames = reshape_patch_back(forecasts, self.patch)
        if self.downsampling > 1:
            stages = mirrored_features(self.downsampling, channels)
            frames = FrameDecoder(stages, name="decoder", **types)(frames)
        return frames[..., :height, :width, :]

    def _check_arrays(self, inputs, train, targets, step):
        check_inputs(inputs, self.input_shape)
        if not train:
            return
        if targets is None or step is None:
            raise ValueError(
                "train=True needs targets and step, because the model reads some of "
                "the true frames in training; use train=False to forecast"
            )
        want = (inputs.shape[0], *self.target_shape)
        if tuple(targets.shape) != want:
            raise ValueError(
                f"targets need shape (batch, K, H, W, C) = {want}; "
                f"got {tuple(targets.shape)}"
            )

    def _lengthen(self, x, mode):
        """Frames for all T + K - 1 steps, padded with zeros or with the last one."""
        missing = self.input_shape[0] + self.target_shape[0] - 1 - x.shape[1]
        return jnp.pad(x, ((0, 0), (0, missing), *[(0, 0)] * 3), mode=mode)

    def _true(self, batch, train, step, total_steps):
        """bool `[b, T + K - 1]`: whether a true frame is read."""
        context, ahead = self.input_shape[0], self.target_shape[0]
        if not train:
            true = np.arange(context + ahead - 1) < context
            return jnp.broadcast_to(true, (batch, len(true)))
        first, later = self._probabilities(step, total_steps)
        if first is None:
            always, drawn = context, jnp.full(ahead - 1, later)
        else:
            always = 1
            drawn = np.arange(context + ahead - 2)
            drawn = jnp.where(drawn < context - 1, first, later)
        true = scheduled_sampling.draw(
            self.make_rng("sampling"), drawn, batch, len(drawn)
        )
        return jnp.pad(true, ((0, 0), (always, 0)), constant_values=True)

    def _outside(self, grow):
        """bool `[h, w, c]` in patches: True in the added border.

        The zeros there are read during the forecast, too, as in the context.
        """
        height, width, channels = self.target_shape[1:]
        inside = np.ones((height, width, channels), bool)
        inside = np.pad(inside, (*grow, (0, 0)))
        return ~reshape_patch(jnp.asarray(inside), self.patch)

    def _sow_losses(self, forecasts, truth, weights, decoupling):
        context, ahead = self.input_shape[0], self.target_shape[0]
        rounds = 2 if self.reverse_input else 1
        batch = len(forecasts) // rounds

        def loss(examples, frames):
            part = None if weights is None else weights[examples, frames]
            error = scheduled_sampling.known_error(
                forecasts[examples, frames], truth[examples, frames], part
            )
            return jnp.mean(scheduled_sampling.weighted(jnp.square(error), part))

        if context > 1 and self.context_weight:
            # The mean over sequences and reversed ones, so that it counts twice.
            weight = rounds * self.context_weight * (context - 1) / ahead
            every = slice(None), slice(None, context - 1)
            self.sow("losses", "context", weight * loss(*every))
        if self.reverse_input:
            every = slice(batch, None), slice(context - 1, None)
            self.sow("losses", "reversed", loss(*every))
        if self.decoupling:
            weight = rounds * self.decoupling_weight * (context + ahead - 1) / ahead
            self.sow("losses", "decoupling", weight * decoupling)


def _with_reversed(x):
    """`[2 b, t, ...]`: sequences, and the same ones backward in time."""
    return jnp.concatenate([x, jnp.flip(x, axis=1)])
