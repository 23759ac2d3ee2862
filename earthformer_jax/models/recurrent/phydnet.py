"""PhyDNet: one latent branch obeys a differential equation, the other is free.

An encoder shrinks each frame by 4. Two branches read the result: PhyCells, whose state
moves by learned derivatives, and ConvLSTM cells for the rest. The decoder reads the
sum of the branches and returns the next frame; after the last known frame, its own
forecast is the next input.

In training the first T - 1 outputs have to restore the context frames 2 ... T, the
derivative filters are pulled towards true derivatives (`ops.moments`), and one draw per
step decides whether true frames are fed back in place of forecasts.

Reference:
    Le Guen and Thome 2020, Disentangling Physical Dynamics from Unknown Factors for
    Unsupervised Video Prediction. https://arxiv.org/abs/2003.01460
"""

import functools
from typing import Any

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.checks import NONE, SIZES, check_fields, either
from earthformer_jax.layers.frames import each_frame, loop_of_examples
from earthformer_jax.layers.loop_conv import SAVED
from earthformer_jax.models import remat as remat_lib
from earthformer_jax.models.recurrent import scheduled_sampling
from earthformer_jax.models.recurrent.dcgan import DCGANStack
from earthformer_jax.models.recurrent.phy_cell import CellStack, ConvLSTMCell, PhyCell
from earthformer_jax.models.shapes import check_shapes
from earthformer_jax.ops.devices.varying import vary_like
from earthformer_jax.ops.moments import moment_loss
from earthformer_jax.settings import NOT_NEGATIVE, at_least, choice, setting

SHRINK = 4  # frame to latent field
PUBLISHED_TEACHER_STEPS = 208_333
OUTPUTS = {"sigmoid": nn.sigmoid, "linear": lambda x: x}


class PhyDNet(nn.Module):
    """Forecaster with a physical and a residual branch.

    If frames have more channels than forecasts, forecasts are the first ones; when they
    are fed back, the others are those of the last known frame.

    With train=True the loss of the published code is the sum of three terms, divided by
    the number of forecast frames: the mean error of the forecast, which the training
    step computes, and the "reconstruction" of the context frames and the "moments",
    which are sown into "losses".

    Attributes:
        input_shape: (T, H, W, C_in).
        target_shape: (K, H, W, C_out), at most C_in channels. Planes that 4 does not
            divide are padded with zeros at the end, and the forecast is cropped.
        features: channels of the encoder's first layers; the latent field has twice as
            many.
        norm_groups: of the group normalisations in encoders and decoders; divides
            `features`.
        phycell_features: derivative filters of each PhyCell, from the lowest.
        phycell_kernel: odd side of these filters.
        phycell_groups: of the normalisation of their results; divides all of
            `phycell_features`.
        convcell_features: channels of each ConvLSTM cell; the last is 2 features.
        convcell_kernel: odd side of their kernels.
        output: "sigmoid", for data in [0, 1] as published, or "linear".
        reconstruction_weight: of the context frames' error.
        moment_weight: of the moments' error, which needs phycell_kernel**2 filters in
            the first PhyCell.
        teacher_steps: the probability of feeding true frames back falls linearly from
            1 at step 0 to 0 at this step; 0 never feeds them back. None: half of the
            training, at most the published number of 208,333 (0.003 per epoch of 10,000
            examples in batches of 16).
        remat: what is computed again in the backward pass; see `models.remat`.
        dtype: computation type; None follows the inputs, float32 at least.
        param_dtype: parameter type.
    """

    uses_targets = True
    time_first = True  # of frames that share an axis with the batch

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]
    features: int = setting(32, at_least(1))
    norm_groups: int = setting(16, at_least(1))
    phycell_features: tuple[int, ...] = setting((49,), SIZES)
    phycell_kernel: int = setting(7, at_least(1))
    phycell_groups: int = setting(7, at_least(1))
    convcell_features: tuple[int, ...] = setting((128, 128, 64), SIZES)
    convcell_kernel: int = setting(3, at_least(1))
    output: str = setting("sigmoid", choice(*OUTPUTS))
    reconstruction_weight: float = setting(1.0, NOT_NEGATIVE)
    moment_weight: float = setting(1.0, NOT_NEGATIVE)
    teacher_steps: int | None = setting(None, either(at_least(0), NONE))
    remat: remat_lib.Remat = setting("none", remat_lib.ACCEPTED)
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def check(self) -> None:
        """Raises ValueError for inconsistent options."""
        check_shapes(self.input_shape, self.target_shape)
        check_fields(self)
        given, wanted = tuple(self.input_shape), tuple(self.target_shape)
        if wanted[-1] > given[-1]:
            raise ValueError(
                "forecasts are fed back, so targets must be the first channels of the "
                f"inputs; got {given[-1]} input and {wanted[-1]} target channels"
            )
        self._check_sizes()
        moments = self.phycell_kernel**2
        if self.moment_weight and self.phycell_features[0] != moments:
            raise ValueError(
                f"a {self.phycell_kernel}x{self.phycell_kernel} kernel has {moments} "
                "moments and needs as many filters; got phycell_features "
                f"{tuple(self.phycell_features)}; change them or set moment_weight=0"
            )

    def _check_sizes(self):
        if self.features % self.norm_groups:
            raise ValueError(
                f"norm_groups must divide features {self.features}; "
                f"got {self.norm_groups}"
            )
        if any(n % self.phycell_groups for n in self.phycell_features):
            raise ValueError(
                "phycell_groups must divide phycell_features "
                f"{tuple(self.phycell_features)}; got {self.phycell_groups}"
            )
        if self.convcell_features[-1] != 2 * self.features:
            raise ValueError(
                "the last ConvLSTM cell needs the channels of the latent field, "
                f"2 features = {2 * self.features}; got convcell_features "
                f"{tuple(self.convcell_features)}"
            )
        for name in ("phycell_kernel", "convcell_kernel"):
            if (side := getattr(self, name)) < 1 or side % 2 == 0:
                raise ValueError(f"{name} must be a positive odd number; got {side}")

    def setup(self):
        self.check()
        types: dict[str, Any]
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        n, latent = self.features, 2 * self.features
        stack: dict[str, Any] = dict(groups=self.norm_groups, **types)
        channels = self.target_shape[-1]
        self.encoder = DCGANStack((n, n, latent), (2, 1, 2), **stack)
        self.decoder = DCGANStack(
            (n, n, channels), (2, 1, 2), up=True, last="conv", **stack
        )
        level = dict(stack, features=(latent, latent), strides=(1, 1))
        self.physical_encoder = DCGANStack(**level)
        self.residual_encoder = DCGANStack(**level)
        self.physical_decoder = DCGANStack(up=True, **level)
        self.residual_decoder = DCGANStack(up=True, **level)
        phycells = [
            PhyCell(latent, count, self.phycell_kernel, self.phycell_groups, **types)
            for count in self.phycell_features
        ]
        below = (latent, *self.convcell_features)
        convcells = [
            ConvLSTMCell(size, inputs, self.convcell_kernel, **types)
            for size, inputs in zip(self.convcell_features, below, strict=False)
        ]
        self.physical = CellStack(phycells, self.remat)
        self.residual = CellStack(convcells, self.remat)

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

        If "intermediates" is mutable, sows into it for the T + K - 1 steps what each
        branch alone decodes to ("physical_part", "residual_part"), the last PhyCell's
        "physical_state", and the "restored" context frames 2 ... T.

        Args:
            inputs: `[b, T, H, W, C_in]`.
            train: whether to sow losses and, at some steps, feed targets back.
            targets: `[b, K, H, W, C_out]`, true frames, used in training only; None
                feeds forecasts back. Needs the rng "sampling".
            weights: of the targets in the loss, see `models.contract.Pupil`. Values
                with weight 0 are never fed back; the forecast is, in their place.
            input_weights: the same for the inputs' first C_out channels.
            step: optimiser steps taken, on which the share of true frames depends.
            total_steps: planned length of the training, which that share follows.

        Returns:
            float32 `[b, K, H, W, C_out]`.

        Raises:
            ValueError: for inconsistent options, arrays whose shapes are not
                `input_shape` and `target_shape`, or targets without a step.
        """
        self._check_arrays(inputs, targets if train else None, step)
        dtype = self.dtype or jnp.promote_types(inputs.dtype, jnp.float32)
        frames = einops.rearrange(inputs.astype(dtype), "b t h w c -> t b h w c")
        inside = self.is_mutable_collection("intermediates")
        restore = inside or (train and self.reconstruction_weight > 0)

        truths = teaching = None
        if train and targets is not None and self.teacher_steps != 0:
            share = self.teaching_probability(step, total_steps)
            teaching, truths = self._teacher(share, inputs, targets, weights, dtype)

        def network(model, frames, truths, teaching):
            states, latent = model._read(frames)
            known = latent if restore else [x[-1:] for x in latent]
            images = each_frame(model._decode, *known, time_first=True)
            start = states, frames[-1], images[-1]
            later, later_latent = model._continue(*start, truths, teaching)
            return images, latent, later, later_latent

        images, latent, later, later_latent = loop_of_examples(
            network,
            self,
            *(frames, truths, teaching),
            axes=(1, 1, None),
            out_axes=(1, 1, 1, 1),
        )
        forecast = jnp.concatenate([images[-1:], later])

        if train:
            self._sow_losses(images[:-1], frames[1:], input_weights)
        if inside:
            whole = [jnp.concatenate(x) for x in zip(latent, later_latent, strict=True)]
            self._sow_inside(images[:-1], *whole)
        forecast = einops.rearrange(forecast, "t b h w c -> b t h w c")
        return forecast.astype(jnp.promote_types(dtype, jnp.float32))

    def _read(self, frames):
        """States after all known frames, and both branches' outputs `[t, b, h, w, c]`.

        The encoders do not depend on the states of the cells, so all frames are encoded
        at once.
        """
        latent = each_frame(self._encode, frames, time_first=True)
        start = (frames.shape[1], latent[0].shape[2:4], frames.dtype)
        states = self.physical.zeros(*start), self.residual.zeros(*start)
        states = vary_like(states, frames)
        physical, a = self.physical.sequence(states[0], latent[0])
        residual, b = self.residual.sequence(states[1], latent[1])
        return (physical, residual), (a, b)

    def _continue(self, states, last_frame, image, truths, teaching):
        """The forecasts after the first, and both branches' outputs, time first."""
        rest = last_frame[..., self.target_shape[-1] :]

        def advance(model, carry, truth):
            (physical, residual), image = carry
            if truth is not None:
                true, known = truth
                taught = teaching if known is None else teaching & known
                image = jnp.where(taught, true, image)
            frame = jnp.concatenate([image, rest], axis=-1)
            for_physical, for_residual = model._encode(frame, in_loop=True)
            physical, a = model.physical.step(physical, for_physical)
            residual, b = model.residual.step(residual, for_residual)
            image = model._decode(a, b, in_loop=True)
            return ((physical, residual), image), (image, (a, b))

        policy = remat_lib.policy_of(self.remat, SAVED)
        scan = nn.scan(
            nn.remat(advance, prevent_cse=False, policy=policy),
            variable_broadcast="params",
            split_rngs={"params": False},
            length=self.target_shape[0] - 1,
        )
        _, outputs = scan(self, (states, image), truths)
        return outputs

    def teaching_probability(self, step: Any, total_steps: int | None) -> jax.Array:
        """Probability that true frames are fed back in place of forecasts."""
        steps = self.teacher_steps
        if steps is None:
            steps = scheduled_sampling.taught_steps(
                total_steps, PUBLISHED_TEACHER_STEPS
            )
        taken = jnp.asarray(step, jnp.float32)
        return jnp.clip(1 - taken / steps, 0, 1) if steps else jnp.zeros_like(taken)

    def _teacher(self, share, inputs, targets, weights, dtype):
        """Whether to feed true frames back, and these with where they are known.

        The frames are `[K - 1, b, h, w, c]`, as is bool where they are known, or None.
        """
        teaching = jax.random.bernoulli(self.make_rng("sampling"), share)
        last = inputs[:, -1:, ..., : targets.shape[-1]]
        truths, known = scheduled_sampling.readable(targets, weights, last)
        truths, known = jax.tree.map(
            lambda x: einops.rearrange(x[:, :-1], "b t ... -> t b ..."),
            (truths.astype(dtype), known),
        )
        return teaching, (truths, known)

    def _encode(self, frames, in_loop=False):
        """The inputs of both branches, from frames `[n, H, W, C_in]`."""
        height, width = frames.shape[1:3]
        grow = [(0, -size % SHRINK) for size in (height, width)]
        x = self.encoder(jnp.pad(frames, ((0, 0), *grow, (0, 0))), in_loop=in_loop)
        return tuple(
            encoder(x, in_loop=in_loop)
            for encoder in (self.physical_encoder, self.residual_encoder)
        )

    def _decode(self, physical=None, residual=None, in_loop=False):
        """Images `[n, H, W, C_out]` from the branches, or from one of them."""
        branches = (
            (self.physical_decoder, physical),
            (self.residual_decoder, residual),
        )
        parts = [
            decoder(x, in_loop=in_loop) for decoder, x in branches if x is not None
        ]
        x = functools.reduce(jnp.add, parts)
        height, width = self.target_shape[1:3]
        image = self.decoder(x, in_loop=in_loop)[:, :height, :width]
        return OUTPUTS[self.output](image)

    def _sow_losses(self, restored, context, weights):
        frames, *_, channels = self.target_shape
        if self.reconstruction_weight:
            context = context[..., :channels]
            if weights is not None:
                # All but the first input frame are restored.
                shape = (context.shape[1], len(context) + 1, *context.shape[2:])
                weights = jnp.broadcast_to(jnp.asarray(weights), shape)[:, 1:]
                weights = einops.rearrange(weights, "b t ... -> t b ...")
            error = scheduled_sampling.known_error(restored, context, weights)
            error = jnp.square(error.astype(jnp.float32))
            error = scheduled_sampling.weighted(error, weights)
            loss = jnp.sum(jnp.mean(error, axis=(1, 2, 3, 4)))
            self.sow(
                "losses", "reconstruction", self.reconstruction_weight / frames * loss
            )
        if self.moment_weight:
            first = self.physical.cells[0]
            assert isinstance(first, PhyCell)
            loss = moment_loss(first.derivative_kernel())
            self.sow("losses", "moments", self.moment_weight / frames * loss)

    def _sow_inside(self, restored, physical, residual):
        inside = {
            "restored": restored,
            "physical_state": physical,
            "physical_part": each_frame(self._decode, physical, time_first=True),
            "residual_part": each_frame(
                lambda residual: self._decode(residual=residual),
                residual,
                time_first=True,
            ),
        }
        for name, x in inside.items():
            x = einops.rearrange(x, "t b h w c -> b t h w c")
            self.sow("intermediates", name, x)

    def _check_arrays(self, inputs, targets, step):
        for name, array, shape in (
            ("inputs", inputs, self.input_shape),
            ("targets", targets, self.target_shape),
        ):
            if array is not None and tuple(array.shape[1:]) != tuple(shape):
                raise ValueError(
                    f"{name} need shape (batch, {', '.join(map(str, shape))}); "
                    f"got {tuple(array.shape)}"
                )
        if targets is not None and step is None:
            raise ValueError(
                "targets need the number of steps taken, which decides how often they "
                "are fed back; pass step"
            )
