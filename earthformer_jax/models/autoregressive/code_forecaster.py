"""Forecasts maps of codes: an Earthformer encoder and a causal decoder.

Nothing here knows what the codes mean.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.layers import initializers
from earthformer_jax.layers.embedding import Embed, PositionEmbedding
from earthformer_jax.models.autoregressive.decoder import CausalDecoder
from earthformer_jax.models.autoregressive.generation import Generator
from earthformer_jax.models.earthformer.hierarchy import (
    CrossPattern,
    Encoder,
    SelfPattern,
)
from earthformer_jax.models.earthformer.options import BlockOptions
from earthformer_jax.ops.dense import repeat_to
from earthformer_jax.ops.resample import Grid, next_multiple


class CodeForecaster(nn.Module):
    """Maps of codes that follow others.

    Global vectors act in the encoder alone: they see every position of their field, and
    in the decoder that would be the future.

    Attributes:
        code_shape: (T, h, w) of the codes that are known.
        frames: K, frames of codes to forecast.
        codebook_size: number of codes, Q.
        features: channels of each level.
        factor: of height and width between levels. A plane that is not divisible by
            all of them is enlarged by code 0 at its end, also where codes are
            generated; such codes are not given back.
        enc_depth: encoder blocks of each level.
        enc_patterns: self-attention pattern of each level of the encoder.
        dec_depth: decoder blocks with cross-attention of each level.
        down_depth: decoder blocks without, of each level but the coarsest.
        self_patterns: self-attention pattern of each level of the decoder.
        cross_patterns: cross-attention pattern of each level.
        num_global_vectors: global vectors of the encoder; 0 switches them off.
        options: shared by all blocks.
        pos_embed: kind of the position embeddings.
        temperature: of the codes that are drawn, see `generation.choose`.
        top_k: the same.
    """

    code_shape: tuple[int, int, int]
    frames: int
    codebook_size: int
    features: Sequence[int]
    factor: int
    enc_depth: Sequence[int]
    enc_patterns: Sequence[SelfPattern]
    dec_depth: Sequence[int]
    down_depth: int
    self_patterns: Sequence[SelfPattern]
    cross_patterns: Sequence[CrossPattern]
    num_global_vectors: int
    options: BlockOptions
    pos_embed: str
    temperature: float
    top_k: int

    @property
    def grids(self) -> tuple[Grid, ...]:
        """(K, h, w) of each level of the decoder, with the codes that are added."""
        whole = self.factor ** (len(self.features) - 1)
        h, w = next_multiple(self.code_shape[1:], (whole, whole))
        shrink = [self.factor**level for level in range(len(self.features))]
        return tuple((self.frames, h // by, w // by) for by in shrink)

    def setup(self):
        """Makes the parts."""
        plane = self.grids[0][1:]
        types, units = self.options.attention.types, self.features[0]
        self.codes = Embed(
            self.codebook_size, units, nn.initializers.normal(1), **types
        )
        self.position = PositionEmbedding(
            (self.code_shape[0], *plane), self.pos_embed, **types
        )
        if self.num_global_vectors:
            self.global_vectors = self.param(
                "global_vectors",
                initializers.table,
                (self.num_global_vectors, units),
                self.options.attention.param_dtype,
            )
        self.encoder = Encoder(
            self.enc_depth,
            self.features,
            self.enc_patterns,
            self.options,
            (1, self.factor, self.factor),
            inter_ffn=True,
            global_dim_ratio=1,
            resample_init="fan_in",
        )
        self.decoder = CausalDecoder(
            self.grids,
            self.code_shape[0],
            self.codebook_size,
            self.features,
            self.factor,
            self.dec_depth,
            self.down_depth,
            self.self_patterns,
            self.cross_patterns,
            self.options,
            self.pos_embed,
        )

    def memories(self, codes: jax.Array, *, train: bool = False) -> list[jax.Array]:
        """Of each level `[b, T, h', w', c']`, from known codes `[b, T, h, w]`."""
        x, g = self.position(self.codes(self._enlarged(codes))), None
        if self.num_global_vectors:
            shape = (x.shape[0], *self.global_vectors.shape)
            g = repeat_to(self.global_vectors, shape, x.dtype)
        return self.encoder(x, g, train=train)[0]

    def __call__(
        self, codes: jax.Array, following: jax.Array, *, train: bool = False
    ) -> jax.Array:
        """Logits of each following code, from the known codes and those before it.

        Args:
            codes: integers `[b, T, h, w]`.
            following: integers `[b, K, h, w]`.
            train: whether dropout acts.

        Returns:
            float32 `[b, K, h, w, Q]`.
        """
        memories = self.memories(codes, train=train)
        following = self.codes(self._enlarged(following))
        logits = self.decoder(following, memories, train=train)
        _, h, w = self.code_shape
        return logits[:, :, :h, :w]

    def _enlarged(self, codes):
        """`[b, t, h, w]` on the plane of the finest level."""
        grow = [
            (0, want - have)
            for want, have in zip(self.grids[0][1:], self.code_shape[1:], strict=True)
        ]
        return jnp.pad(codes, ((0, 0), (0, 0), *grow))

    def generator(self, codes: jax.Array) -> Generator:
        """What generates codes after known ones `[b, T, h, w]`, a pure function.

        The encoder runs here, once for all samples.
        """
        decoder, variables = self.decoder.unbind()
        params = {"params": variables["params"]}
        memories = self.memories(codes)
        _, stored = decoder.apply(
            params, memories, mutable=["memory"], method="remember"
        )
        positions: Any = decoder.apply(params, method="positions")
        return Generator(
            decoder,
            {**params, **stored},
            self.codes.embedding.astype(memories[0].dtype),
            positions,
            codes.shape[0],
            self.code_shape[1:],
            self.temperature,
            self.top_k,
        )
