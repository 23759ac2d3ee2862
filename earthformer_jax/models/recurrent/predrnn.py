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

from earthformer_jax.layers.frame_coder import (
    FrameDecoder,
    FrameEncoder,
    mirrored_features,
    stage_features,
)
from earthformer_jax.models.recurrent import scheduled_sampling
from earthformer_jax.models.recurrent.spatiotemporal_lstm import SpatiotemporalLSTM
from earthformer_jax.models.shapes import check_inputs, check_shapes
from earthformer_jax.ops.patches import reshape_patch, reshape_patch_back

# Options of PredRNN-V2.
V2 = dict(decoupling=True, reverse_sampling=True)


class PredRNN(nn.Module):
    """Forecaster of spatiotemporal LSTMs, version 1 or (with `V2`) 2.

    If the inputs have more channels than the targets, the targets' channels come first.
    The others are appended to every forecast that is fed back, as they were in the last
    input frame; with downsampling they are encoded with the frame, and during the
    forecast only the latents carry them.

    The published sampling schedules last 50,000 steps, and a model that has never read
    its own forecasts drifts when it has to. Shorter training needs a larger
    `sampling_rate`, or smaller `reverse_begin`, `reverse_end` and `reverse_decay`.

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
        sampling_rate: its decrease per step.
        sampling_stop: number of the first step without true frames.
        reverse_begin: steps until the reverse schedule leaves one half.
        reverse_end: number of the first step whose sampling is that of a forecast.
        reverse_decay: time scale in steps of the increase of true frames in the
            context.
        remat: recompute every frame in the backward pass, which saves memory.
        dtype: computation type; None means float32.
        param_dtype: parameter type.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]
    num_layers: int = 4
    features: int = 128
    kernel_size: int = 5
    patch: int = 4
    layer_norm: bool = False
    downsampling: int = 1
    context_weight: float = 1.0
    decoupling: bool = False
    decoupling_weight: float = 0.1
    reverse_sampling: bool = False
    sampling_start: float = 1.0
    sampling_rate: float = 2e-5
    sampling_stop: int = 50_000
    reverse_begin: int = 25_000
    reverse_end: int = 50_000
    reverse_decay: float = 5_000.0
    remat: bool = False
    dtype: Any = None
    param_dtype: Any = jnp.float32

    uses_targets = True

    def check(self) -> None:
        """Raises ValueError for inconsistent options."""
        check_shapes(self.input_shape, self.target_shape)
        if self.target_shape[-1] > self.input_shape[-1]:
            raise ValueError(
                "a forecast is read as the next input, so the inputs need all channels "
                f"of the targets; got {self.input_shape[-1]} and "
                f"{self.target_shape[-1]} channels"
            )
        for name in ("num_layers", "features", "kernel_size", "patch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}")
        if self.kernel_size % 2 == 0:
            raise ValueError(
                "kernel_size must be odd, so that the states keep their size; got "
                f"{self.kernel_size}"
            )
        if self.downsampling != 1:
            stage_features(self.downsampling)
        for name in (
            "context_weight",
            "decoupling_weight",
            "sampling_rate",
            "sampling_stop",
            "reverse_begin",
        ):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"{name} must not be negative; got {getattr(self, name)}"
                )
        if not 0 <= self.sampling_start <= 1:
            raise ValueError(
                f"sampling_start must be in [0, 1]; got {self.sampling_start}"
            )
        if self.reverse_end < self.reverse_begin:
            raise ValueError(
                f"reverse_end={self.reverse_end} must not come before "
                f"reverse_begin={self.reverse_begin}"
            )
        if self.reverse_decay <= 0:
            raise ValueError(
                f"reverse_decay must be positive; got {self.reverse_decay}"
            )

    @nn.compact
    def __call__(
        self,
        inputs: jax.Array,
        *,
        train: bool = False,
        targets: jax.Array | None = None,
        step: jax.Array | int | None = None,
    ) -> jax.Array:
        """Forecasts the next frames.

        With `train` two terms are sown into "losses". Added to the mean squared error
        of the K forecast frames, they give (T + K - 1) / K times the published loss,
        the mean over the forecasts of all frames but the first:

            context: context_weight (T - 1) / K times the error of the input frames;
            decoupling: decoupling_weight (T + K - 1) / K times the decoupling.

        Args:
            inputs: `[b, T, H, W, C_in]`.
            train: whether to train; needs targets, step and the rng "sampling".
            targets: `[b, K, H, W, C_out]`, the true frames.
            step: optimiser steps taken so far, on which the sampling depends.

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
        ahead, *_, channels = self.target_shape

        seen = inputs.astype(dtype)
        if targets is not None:
            # The last target is never read.
            beside = jnp.repeat(seen[:, -1:, ..., channels:], ahead - 1, axis=1)
            later = jnp.concatenate([targets[:, :-1].astype(dtype), beside], axis=-1)
            seen = jnp.concatenate([seen, later], axis=1)
        whole = self.downsampling * self.patch
        grow = [(0, -size % whole) for size in (height, width)]
        seen = jnp.pad(seen, ((0, 0), (0, 0), *grow, (0, 0)))

        types: dict[str, Any] = dict(dtype=dtype, param_dtype=self.param_dtype)
        beside = None
        if self.downsampling > 1:
            stages = stage_features(self.downsampling)
            seen = FrameEncoder(stages, name="encoder", **types)(seen)
        elif seen.shape[-1] > channels:
            seen, beside = seen[..., :channels], seen[..., channels:]
            beside = reshape_patch(self._lengthen(beside, "edge"), self.patch)
        frames = reshape_patch(self._lengthen(seen, "constant"), self.patch)
        true = self._true(len(inputs), train, step)[..., None, None, None]
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
        forecasts = reshape_patch_back(forecasts, self.patch)
        if self.downsampling > 1:
            stages = mirrored_features(self.downsampling, channels)
            forecasts = FrameDecoder(stages, name="decoder", **types)(forecasts)
        forecasts = forecasts[..., :height, :width, :]
        forecasts = forecasts.astype(jnp.promote_types(dtype, jnp.float32))
        if train:
            self._sow_losses(forecasts[:, : context - 1], inputs, decoupling)
        return forecasts[:, -ahead:]

    def _check_arrays(self, inputs, train, targets, step):
        check_inputs(inputs, self.input_shape)
        if not train:
            return
        if targets is None or step is None:
            raise ValueError(
                "train=True needs targets and step, because the model reads some of "
                "the true frames in training; use train=False to forecast"
            )
        want = (len(inputs), *self.target_shape)
        if tuple(targets.shape) != want:
            raise ValueError(
                f"targets need shape (batch, K, H, W, C) = {want}; "
                f"got {tuple(targets.shape)}"
            )

    def _lengthen(self, x, mode):
        """Frames for all T + K - 1 steps, padded with zeros or with the last one."""
        missing = self.input_shape[0] + self.target_shape[0] - 1 - x.shape[1]
        return jnp.pad(x, ((0, 0), (0, missing), *[(0, 0)] * 3), mode=mode)

    def _true(self, batch, train, step):
        """bool `[b, T + K - 1]`: whether a true frame is read."""
        context, ahead = self.input_shape[0], self.target_shape[0]
        if not train:
            true = np.arange(context + ahead - 1) < context
            return jnp.broadcast_to(true, (batch, len(true)))
        if self.reverse_sampling:
            first, later = scheduled_sampling.reverse_probabilities(
                step,
                begin=self.reverse_begin,
                end=self.reverse_end,
                decay=self.reverse_decay,
            )
            always = 1
            drawn = np.arange(context + ahead - 2)
            drawn = jnp.where(drawn < context - 1, first, later)
        else:
            later = scheduled_sampling.forward_probability(
                step,
                start=self.sampling_start,
                rate=self.sampling_rate,
                stop=self.sampling_stop,
            )
            always, drawn = context, jnp.full(ahead - 1, later)
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

    def _sow_losses(self, forecasts, inputs, decoupling):
        context, ahead = self.input_shape[0], self.target_shape[0]
        if context > 1 and self.context_weight:
            truth = inputs[:, 1:, ..., : forecasts.shape[-1]]
            error = jnp.mean(jnp.square(forecasts - truth))
            weight = self.context_weight * (context - 1) / ahead
            self.sow("losses", "context", weight * error)
        if self.decoupling:
            weight = self.decoupling_weight * (context + ahead - 1) / ahead
            self.sow("losses", "decoupling", weight * decoupling)
