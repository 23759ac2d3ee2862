"""VQ-VAE of frames: maps of codes from a learned codebook, and frames from them.

All convolutions look at the present frame and at those before it, never at later ones:
the codes and the restored frame of time t depend on the frames up to t. So a sequence
of codes can be forecast frame by frame and turned into frames as it grows.

Reference:
    van den Oord et al. 2017, Neural Discrete Representation Learning,
    https://arxiv.org/abs/1711.00937. Gao et al. 2022, Earthformer, appendix C, states
    the codebook and the maps of codes; layers and sizes are ours.
"""

from typing import Any

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.checks import check_array, check_fields
from earthformer_jax.models import remat as remat_lib
from earthformer_jax.models.shapes import check_inputs, check_shapes
from earthformer_jax.models.tokens import codebook as codebook_lib
from earthformer_jax.models.tokens.causal_conv import CausalConv
from earthformer_jax.models.tokens.codebook import Codebook
from earthformer_jax.settings import (
    DECAY,
    FRACTION,
    NOT_NEGATIVE,
    Accepted,
    at_least,
    setting,
)

FACTORS = (2, 4, 8)
_FACTOR = Accepted(
    "2, 4 or 8", lambda value: isinstance(value, int) and value in FACTORS
)


class VQVAE(nn.Module):
    """Restores sequences of frames from maps of codes.

    Attributes:
        input_shape: (T, H, W, C). `encode` and `decode` take any number of frames.
        target_shape: the same.
        factor: H and W divided by those of the maps of codes: 2, 4 or 8. Planes that it
            does not divide are padded with copies of the edge, and the restored ones
            are cropped.
        codebook_size: number of codes, Q.
        code_width: channels of a code.
        features: channels of the convolutions on the plane of the codes; each doubling
            of the plane halves them.
        blocks: residual blocks in the encoder and as many in the decoder.
        frames: length of the convolutions in time; 1: every frame by itself.
        commitment: weight of the loss that keeps the encoder near the codes.
        decay: memory of the moving averages that are the codebook.
        revive_below: a code with a smaller share of the positions than this times 1 / Q
            is replaced with an output of the encoder; 0: never.
        remat: what of the residual blocks is computed again in the backward pass;
            see `models.remat`.
        dtype: computation type of the convolutions; None means float32. The codebook is
            float32.
        param_dtype: parameter type.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]
    factor: int = setting(4, _FACTOR)
    codebook_size: int = setting(256, at_least(2))
    code_width: int = setting(32, at_least(1))
    features: int = setting(64, at_least(4))
    blocks: int = setting(2, at_least(0))
    frames: int = setting(3, at_least(1))
    commitment: float = setting(0.25, NOT_NEGATIVE)
    decay: float = setting(0.99, DECAY)
    revive_below: float = setting(0.05, FRACTION)
    remat: remat_lib.Remat = setting("none", remat_lib.ACCEPTED)
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def check(self) -> None:
        """Raises ValueError for inconsistent shapes or options."""
        check_shapes(self.input_shape, self.target_shape)
        check_fields(self)
        if tuple(self.input_shape) != tuple(self.target_shape):
            raise ValueError(
                "a VQ-VAE restores its inputs, so the targets must be the input "
                f"frames; got input_shape {tuple(self.input_shape)} and target_shape "
                f"{tuple(self.target_shape)}"
            )

    @property
    def plane(self) -> tuple[int, int]:
        """Height and width of the maps of codes."""
        height, width = self.input_shape[1:3]
        return -(-height // self.factor), -(-width // self.factor)

    def setup(self):
        """Makes the parts."""
        self.check()
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)

        def conv(features: int, kernel_size: int = 3) -> CausalConv:
            return CausalConv(features, kernel_size, self.frames, **types)

        halvings = self.factor.bit_length() - 1
        widths = [max(self.features >> i, 1) for i in range(halvings + 1)]
        self.down = [conv(widths[i]) for i in reversed(range(halvings))]
        self.encoder = [_Residual(**types) for _ in range(self.blocks)]
        self.to_code = CausalConv(self.code_width, 1, 1, **types)
        self.codebook = Codebook(
            self.codebook_size, self.code_width, self.decay, self.revive_below
        )
        self.from_code = conv(self.features)
        self.decoder = [_Residual(**types) for _ in range(self.blocks)]
        self.up = [conv(4 * width) for width in widths[1:]]
        self.restore = conv(self.target_shape[-1])

    def __call__(self, inputs: jax.Array, *, train: bool = False) -> jax.Array:
        """Encodes and restores.

        Sows `usage` and `perplexity` of the codes of this batch into `intermediates`,
        and in training the commitment loss into `losses`.

        Args:
            inputs: `[b, T, H, W, C]`.
            train: whether the codebook learns; needs the rng "sampling".

        Returns:
            float32 `[b, T, H, W, C]`.

        Raises:
            ValueError: for inconsistent options, or inputs whose shape
                is not `input_shape`.
        """
        check_inputs(inputs, self.input_shape)
        x = self._encoded(inputs)
        numbers, chosen = self.codebook(x, train=train)
        share = codebook_lib.frequencies(numbers, self.codebook_size)
        self.sow("intermediates", "usage", codebook_lib.usage(share))
        self.sow("intermediates", "perplexity", codebook_lib.perplexity(share))
        if train:
            distance = jnp.mean(jnp.square(x - chosen))
            self.sow("losses", "commitment", self.commitment * distance)
        # Straight through: the value of the code, the gradient of the encoder.
        return self._restored(x + jax.lax.stop_gradient(chosen - x))

    def encode(self, frames: jax.Array) -> jax.Array:
        """Codes of frames.

        Args:
            frames: `[b, t, H, W, C]` with any t.

        Returns:
            int32 `[b, t, h, w]`, from 0 to `codebook_size` - 1; the codes of a frame
            depend on it and on those before it.

        Raises:
            ValueError: for another shape.
        """
        _, height, width, channels = self.input_shape
        known = dict(h=height, w=width, c=channels)
        check_array("frames", frames, "b t h w c", known)
        return self.codebook(self._encoded(frames))[0]

    def decode(self, codes: jax.Array) -> jax.Array:
        """Frames from codes.

        Args:
            codes: integers `[b, t, h, w]` with any t.

        Returns:
            float32 `[b, t, H, W, C]`; a frame depends on its codes and on those before.

        Raises:
            ValueError: for another shape.
        """
        height, width = self.plane
        known = dict(h=height, w=width)
        check_array("codes", codes, "b t h w", known, kind=jnp.integer)
        return self._restored(self.codebook.vectors()[codes])

    def _encoded(self, x: jax.Array) -> jax.Array:
        """float32 `[b, t, h, w, c]`, vectors that codes are chosen for."""
        grow = [(0, -size % self.factor) for size in self.input_shape[1:3]]
        x = jnp.pad(x, ((0, 0), (0, 0), *grow, (0, 0)), mode="edge")
        for conv in self.down:
            x = einops.rearrange(
                x, "b t (h u) (w v) c -> b t h w (u v c)", u=2, v=2
            )  # fewer positions, so that the convolution costs less
            x = nn.relu(conv(x))
        for block in self.encoder:
            x = remat_lib.call_block(block, x, remat=self.remat)
        return self.to_code(x).astype(jnp.float32)

    def _restored(self, x: jax.Array) -> jax.Array:
        """float32 `[b, t, H, W, C]` from vectors of codes."""
        x = self.from_code(x)
        for block in self.decoder:
            x = remat_lib.call_block(block, x, remat=self.remat)
        for conv in self.up:
            x = einops.rearrange(
                conv(nn.relu(x)), "b t h w (u v c) -> b t (h u) (w v) c", u=2, v=2
            )
        x = self.restore(nn.relu(x))
        height, width = self.target_shape[1:3]
        return x[:, :, :height, :width].astype(jnp.promote_types(x.dtype, jnp.float32))


class _Residual(nn.Module):
    """x + f(x) with two convolutions; every frame by itself, for the cost's sake."""

    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, t, h, w, c]` to the same."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        y = CausalConv(x.shape[-1], 3, 1, name="spread", **types)(nn.relu(x))
        y = CausalConv(x.shape[-1], 1, 1, name="mix", **types)(nn.relu(y))
        return x + y
