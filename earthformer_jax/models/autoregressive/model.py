"""Earthformer AR: frames as codes of a VQ-VAE, forecast one code after the other.

A trained VQ-VAE (`models.tokens`) turns the input frames into maps of codes. An
Earthformer encoder reads them; a causal decoder gives the probabilities of every code
that follows, from the codes before it in the order of time, row and column. The VQ-VAE
turns the codes into frames. Random codes make samples, the most probable ones the
forecast. Frames are sharper than those of the direct Earthformer, and scores are worse.

Reference:
    Gao et al. 2022, Earthformer, appendix C. https://arxiv.org/abs/2207.05833
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import einops
import jax
import jax.numpy as jnp
import jax.typing
import numpy as np
from flax import linen as nn
from flax.core import FrozenDict

from earthformer_jax.checks import SIZES, check_fields, check_value, inherited
from earthformer_jax.layers.embedding import KINDS as POSITIONS
from earthformer_jax.layers.feed_forward import FeedForwardOptions
from earthformer_jax.losses.cross_entropy import cross_entropy
from earthformer_jax.models import remat as remat_lib
from earthformer_jax.models.autoregressive.code_forecaster import CodeForecaster
from earthformer_jax.models.drawing import draw
from earthformer_jax.models.earthformer.hierarchy import (
    CrossPattern,
    SelfPattern,
    check_pattern,
    level_features,
    per_level,
)
from earthformer_jax.models.earthformer.options import AttentionOptions, BlockOptions
from earthformer_jax.models.shapes import check_inputs, check_shapes
from earthformer_jax.models.tokens.vq_vae import VQVAE
from earthformer_jax.ops.resample import Grid
from earthformer_jax.settings import PATH, POSITIVE, at_least, choice, setting

AT_ONCE = 8  # samples that are generated side by side; more of them follow in turn
TOKENIZER = "tokenizer"  # in `batch_stats`: the variables of the VQ-VAE


class EarthformerAR(nn.Module):
    """The auto-regressive Earthformer.

    The variables of the VQ-VAE are constants, in `batch_stats`: they are trained before
    the rest. It encodes the inputs together with what follows, so that a code of the
    first frames to forecast depends on the frames before them as well.

    Input channels after those of the target, such as the calendar of the data, are not
    seen. Options of the layers are described in `AttentionOptions` (num_heads,
    attn_drop, proj_drop, norm), `FeedForwardOptions` (ffn_activation, ffn_drop, norm)
    and `BlockOptions` (remat).

    Attributes:
        input_shape: (T, H, W, C_in).
        target_shape: (K, H, W, C_out); C_out is at most C_in.
        tokenizer: workdir of a trained VQ-VAE; empty: one is trained first.
        tokenizer_steps: optimiser steps of that training.
        codebook_size: of the VQ-VAE, number of codes.
        factor: of the VQ-VAE, height and width divided by those of the maps of codes.
        tokenizer_options: further attributes of the VQ-VAE.
        base_units: channels of the finest level.
        downsample: factor of height and width between levels.
        enc_depth: encoder blocks per level; its length is the number of levels.
        enc_pattern: a name of `ops.patterns`, or for each level a name or a tuple of
            cuts.
        dec_depth: decoder blocks with cross-attention per level.
        dec_down_depth: decoder blocks without it, of each level but the coarsest, which
            lie before the next level.
        dec_self_pattern: self-attention pattern of the decoder, like `enc_pattern`. A
            causal layer along one axis sees nothing to the right of and below its cell
            in earlier frames; "full" at the coarsest level does.
        dec_cross_pattern: cross-attention pattern, like `enc_pattern`.
        num_global_vectors: global vectors of the encoder; 0 switches them off. The
            decoder has none, since they would see the codes to come.
        padding: "ignore" or "zeros", of grids that cuboids do not divide.
        pos_embed: "t+h+w" or "t+hw".
        temperature: of samples: logits are divided by it.
        top_k: of samples: only the k most probable codes are drawn; 0: all.
        seed: of samples: another one gives others.
        dtype: of the arithmetic; None is float32. The VQ-VAE has its own, one of
            `tokenizer_options`.
        param_dtype: of the parameters.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]
    tokenizer: str = setting("", PATH)
    tokenizer_steps: int = setting(5000, at_least(1))
    codebook_size: int = inherited(VQVAE, "codebook_size")
    factor: int = inherited(VQVAE, "factor")
    tokenizer_options: Mapping[str, Any] = FrozenDict()
    base_units: int = setting(64, at_least(1))
    downsample: int = setting(2, at_least(2))
    enc_depth: Sequence[int] = setting((1, 1), SIZES)
    enc_pattern: str | Sequence[SelfPattern] = "axial"
    dec_depth: Sequence[int] = setting((1, 1), SIZES)
    dec_down_depth: int = setting(1, at_least(0))
    dec_self_pattern: str | Sequence[SelfPattern] = "divided_st,full"
    dec_cross_pattern: str | Sequence[CrossPattern] = "cross_1x1"
    num_global_vectors: int = setting(8, at_least(0))
    num_heads: int = inherited(AttentionOptions, "num_heads")
    attn_drop: float = inherited(AttentionOptions, "attn_drop")
    proj_drop: float = inherited(AttentionOptions, "proj_drop")
    ffn_drop: float = inherited(FeedForwardOptions, "dropout")
    ffn_activation: str = inherited(FeedForwardOptions, "activation")
    norm: str = inherited(FeedForwardOptions, "norm")
    padding: str = setting("ignore", choice("ignore", "zeros"))
    pos_embed: str = setting("t+h+w", choice(*POSITIONS))
    temperature: float = setting(1.0, POSITIVE)
    top_k: int = setting(0, at_least(0))
    seed: int = setting(0, at_least(0))
    remat: remat_lib.Remat = inherited(BlockOptions, "remat")
    dtype: Any = None
    param_dtype: Any = jnp.float32

    uses_targets = True
    own_loss = True
    draws = True

    @property
    def features(self) -> tuple[int, ...]:
        """Channels of each level."""
        factor = (1, self.downsample, self.downsample)
        return level_features(self.base_units, len(self.enc_depth), factor)

    def vq_vae(self) -> VQVAE:
        """The VQ-VAE, of inputs and targets one after the other, without variables."""
        frames = self.input_shape[0] + self.target_shape[0]
        shape = (frames, *self.target_shape[1:])
        return VQVAE(
            shape,
            shape,
            factor=self.factor,
            codebook_size=self.codebook_size,
            parent=None,
            **self.tokenizer_options,
        )

    def check(self) -> None:
        """Raises ValueError for inconsistent shapes or options."""
        check_shapes(self.input_shape, self.target_shape)
        check_fields(self)
        if self.target_shape[3] > self.input_shape[3]:
            raise ValueError(
                f"target_shape={tuple(self.target_shape)}: the inputs, of the shape "
                f"{tuple(self.input_shape)}, need all channels of the targets"
            )
        of_tokenizer = set(VQVAE.__dataclass_fields__) - {
            *("input_shape", "target_shape", "codebook_size", "factor"),
            *("parent", "name"),
        }
        if unknown := set(self.tokenizer_options) - of_tokenizer:
            raise ValueError(
                f"tokenizer_options: the VQ-VAE has no option "
                f"{', '.join(sorted(map(str, unknown)))}; expected some of "
                f"{', '.join(sorted(of_tokenizer))}"
            )
        try:
            self.vq_vae().check()
        except ValueError as error:
            raise ValueError(f"tokenizer_options: {error}") from None
        if len(self.dec_depth) != len(self.enc_depth):
            raise ValueError(
                "enc_depth and dec_depth need one entry per level; got "
                f"{tuple(self.enc_depth)} and {tuple(self.dec_depth)}"
            )
        if any(c % self.num_heads for c in self.features):
            raise ValueError(
                f"num_heads must divide the channels of every level {self.features}; "
                f"got {self.num_heads}"
            )
        grids = self.code_forecaster().grids
        memories: list[Grid] = [(self.input_shape[0], *grid[1:]) for grid in grids]
        check_pattern("enc_pattern", self.enc_pattern, memories)
        check_pattern("dec_self_pattern", self.dec_self_pattern, grids)
        check_pattern("dec_cross_pattern", self.dec_cross_pattern, memories)
        if self.top_k > self.codebook_size:
            raise ValueError(
                f"top_k={self.top_k}: expected at most "
                f"codebook_size={self.codebook_size}"
            )

    def code_forecaster(self) -> CodeForecaster:
        """The network of codes, without variables."""
        types: dict[str, Any] = dict(
            dtype=self.dtype or jnp.float32, param_dtype=self.param_dtype
        )
        attention = AttentionOptions(
            num_heads=self.num_heads,
            attn_drop=self.attn_drop,
            proj_drop=self.proj_drop,
            norm=self.norm,
            padding=self.padding,
            **types,
        )
        feed_forward = FeedForwardOptions(
            activation=self.ffn_activation,
            dropout=self.ffn_drop,
            norm=self.norm,
            **types,
        )
        levels = len(self.enc_depth)
        return CodeForecaster(
            (self.input_shape[0], *self.vq_vae().plane),
            self.target_shape[0],
            self.codebook_size,
            self.features,
            self.downsample,
            self.enc_depth,
            per_level(self.enc_pattern, levels, "enc_pattern"),
            self.dec_depth,
            self.dec_down_depth,
            per_level(self.dec_self_pattern, levels, "dec_self_pattern"),
            per_level(self.dec_cross_pattern, levels, "dec_cross_pattern"),
            self.num_global_vectors,
            BlockOptions(attention, feed_forward, remat=remat_lib.name_of(self.remat)),
            self.pos_embed,
            self.temperature,
            self.top_k,
            parent=None,
        )

    def setup(self):
        """Makes the parts."""
        self.check()
        self.codes = self.code_forecaster()
        self.constants = self.variable("batch_stats", TOKENIZER, self._untrained)

    def _untrained(self):
        tokenizer = self.vq_vae()
        frames = jnp.zeros((1, *tokenizer.input_shape))
        return dict(tokenizer.init(self.make_rng("params"), frames))

    def __call__(
        self,
        inputs: jax.Array,
        *,
        train: bool = False,
        targets: jax.Array | None = None,
        weights: jax.Array | np.ndarray | None = None,
        input_weights: jax.Array | np.ndarray | None = None,
        step: jax.Array | None = None,
        total_steps: int | None = None,
    ) -> jax.Array:
        """The forecast of the most probable codes, each given those before it.

        In training, the cross entropy of the codes of the targets is sown into
        `losses`, and the frames are those of the most probable codes given the true
        ones before. Unknown targets are encoded as 0, and their share of a code does
        not count in its weight.

        Args:
            inputs: `[b, T, H, W, C_in]`.
            train: whether to learn from targets; dropout needs the rng "dropout".
            targets: `[b, K, H, W, C_out]`, needed in training; values without weight
                may be anything.
            weights: of the targets, broadcastable to them; None: all have weight 1.
            input_weights: not used; inputs have no unknown values.
            step: not used.
            total_steps: not used.

        Returns:
            float32 `[b, K, H, W, C_out]`.

        Raises:
            ValueError: for inconsistent options, inputs of another shape than
                `input_shape`, or training without targets.
        """
        known = self._known(inputs)
        if self.is_initializing():
            codes = self._encode(known)
            following = jnp.zeros(
                (codes.shape[0], self.target_shape[0], *codes.shape[2:])
            )
            logits = self.codes(codes, following.astype(codes.dtype))
            return self._decode(codes, jnp.argmax(logits, axis=-1))
        if not train:
            codes = self._encode(known)
            return self._decode(codes, self.codes.generator(codes)()[0])
        if targets is None:
            raise ValueError("targets=None: expected the true frames with train=True")
        codes, logits, loss = self._taught(known, targets, weights, train=True)
        self.sow("losses", "cross_entropy", jnp.mean(loss))
        return self._decode(codes, jnp.argmax(logits, axis=-1))

    def validation_loss(
        self,
        inputs: jax.Array,
        targets: jax.Array,
        weights: jax.Array | np.ndarray | None = None,
    ) -> jax.Array:
        """Cross entropy of the true codes, each given those before it.

        Args:
            inputs, targets, weights: as in `__call__`.

        Returns:
            float32 `[b]`, in nats for each code.
        """
        return self._taught(self._known(inputs), targets, weights, train=False)[2]

    def _taught(self, known, targets, weights, *, train):
        """Codes of the inputs, logits of those of the targets, and their loss `[b]`."""
        if weights is not None:
            targets = jnp.where(weights > 0, targets, 0)
        frames = jnp.concatenate([known, targets.astype(known.dtype)], axis=1)
        codes, true = jnp.split(self._encode(frames), [self.input_shape[0]], axis=1)
        logits = self.codes(codes, true, train=train)
        shares = None if weights is None else self._per_code(weights)
        return codes, logits, cross_entropy(logits, true, shares)

    def members(
        self,
        inputs: jax.Array,
        size: int,
        *,
        first: jax.typing.ArrayLike = 0,
        seen: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """Samples: forecasts of codes that are drawn with their probabilities.

        A sample is a function of its number, the values of the window's inputs and
        `seed`.

        Args:
            inputs: `[b, T, H, W, C_in]`.
            size: number of samples.
            first: number of the first of them, an integer.
            seen: `[b, ...]`, from whose values follows what is drawn; None: from those
                of the inputs.
            train: must be False: training needs no samples.

        Returns:
            float32 `[size, b, K, H, W, C_out]`.

        Raises:
            ValueError: with `train`, or for inputs of another shape than `input_shape`.
        """
        check_value("size", size, at_least(1))
        if train:
            raise ValueError("train=True: the model learns without samples")
        codes = self._encode(self._known(inputs))
        generate = self.codes.generator(codes)
        decode = functools.partial(self._decode, codes)

        def sample(noise):
            return decode(generate(noise)[0])

        shape = (self.target_shape[0], *codes.shape[2:])
        seen = inputs if seen is None else seen
        noise = draw(jax.random.uniform, seen, size, shape, self.seed, first)
        if size <= AT_ONCE:
            return jax.vmap(sample)(noise)
        return jax.lax.map(sample, noise, batch_size=AT_ONCE)

    def _known(self, inputs):
        check_inputs(inputs, self.input_shape)
        return inputs[..., : self.target_shape[-1]].astype(jnp.float32)

    def _encode(self, frames) -> jax.Array:
        tokenizer, constants = self.vq_vae(), self.constants.value
        codes: Any = tokenizer.apply(constants, frames, method="encode")
        return jax.lax.stop_gradient(codes)

    def _decode(self, codes, following):
        """The frames of codes that follow others."""
        both = jnp.concatenate([codes, following.astype(codes.dtype)], axis=1)
        tokenizer, constants = self.vq_vae(), self.constants.value
        frames: Any = tokenizer.apply(constants, both, method="decode")
        return frames[:, self.input_shape[0] :]

    def _per_code(self, weights):
        """Mean weight of the values that a code stands for, `[b or 1, k, h, w]`."""
        shape = (
            np.shape(weights)[0] if np.ndim(weights) == 5 else 1,
            *self.target_shape,
        )
        weights = jnp.broadcast_to(weights, shape).mean(axis=-1)
        by = self.factor
        grow = [(0, -size % by) for size in shape[2:4]]

        def sums(x):
            x = jnp.pad(x, ((0, 0), (0, 0), *grow))
            return einops.reduce(x, "b k (h u) (w v) -> b k h w", "sum", u=by, v=by)

        return sums(weights) / sums(jnp.ones_like(weights))
