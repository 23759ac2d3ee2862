"""Autoencoder of sequences of fields: embeds every step, and restores the fields.

Strided convolutions shrink every frame, a ConvLSTM or FAConvLSTM reads the sequence,
and a `SubspaceHead` reduces every step to one short vector. The decoder sees only
those vectors: a linear map turns each into a plane, a second recurrence reads them,
and convolutions restore the size of the frames.

The design is ours, around the parts that the abstract of FAConvLSTM names (recurrence,
subspace head, temporal attention, seasonal code); it does not describe its autoencoder.

Reference:
    Nji and Wang 2026, Factorized-Attention ConvLSTM for Efficient Feature Extraction in
    Multivariate Climate Data. https://arxiv.org/abs/2601.10914
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from earthformer_jax.checks import SIZES, check_fields
from earthformer_jax.layers.convolution import Conv
from earthformer_jax.layers.dense import Linear
from earthformer_jax.layers.frames import each_frame
from earthformer_jax.models import remat as remat_lib
from earthformer_jax.models.recurrent.encoder_forecaster import CELLS, LEAKY_SLOPE
from earthformer_jax.models.recurrent.subspace_head import YEAR, SubspaceHead
from earthformer_jax.models.shapes import check_inputs, check_shapes
from earthformer_jax.settings import at_least, setting

SEASON = 2  # channels: cosine and sine of the time of the year


class ConvAutoencoder(nn.Module):
    """Embeds every step of a sequence, and restores the sequence from the embeddings.

    Input channels after those of the target are the calendar of the data: cosine and
    sine of the season, and perhaps of the time of day. The head encodes the season; the
    convolutions see none of these channels.

    Attributes:
        input_shape: (T, H, W, C_in).
        target_shape: (T, H, W, C_out); C_out is C_in, or 2 or 4 less with a calendar.
        cell: "conv_lstm" or "fa_conv_lstm".
        features: channels of the cells.
        strides: of the convolutions before the encoder's cell, one entry each. Planes
            that they do not divide are padded with copies of the edge, and the
            restored ones are cropped.
        cell_kernel: kernel side of the cells.
        cell_options: further attributes of the cells.
        embedding: width of the embedding.
        plane_features: channels of every position that the head reads and the decoder
            starts from; 0: the head sees only mean and maximum of the plane.
        heads: of the attention over steps; 0 switches it off.
        hidden: width of the head's feed-forward layer; 0 switches it off.
        harmonics: of the year in the head's seasonal code; ignored without a calendar.
        remat: what of the cells' steps is computed again in the backward pass;
            see `models.remat`.
        dtype: computation type; None means float32.
        param_dtype: parameter type.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]
    cell: str = "fa_conv_lstm"
    features: int = setting(32, at_least(1))
    strides: Sequence[int] = setting((2,), SIZES)
    cell_kernel: int = setting(3, at_least(1))
    cell_options: Mapping[str, Any] = FrozenDict()
    embedding: int = setting(32, at_least(1))
    plane_features: int = setting(8, at_least(0))
    heads: int = setting(4, at_least(0))
    hidden: int = setting(64, at_least(0))
    harmonics: int = setting(4, at_least(0))
    remat: remat_lib.Remat = setting("none", remat_lib.ACCEPTED)
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def check(self) -> None:
        """Raises ValueError for inconsistent options."""
        check_shapes(self.input_shape, self.target_shape)
        check_fields(self)
        calendar = self.input_shape[-1] - self.target_shape[-1]
        same = tuple(self.input_shape[:3]) == tuple(self.target_shape[:3])
        if not same or calendar not in (0, SEASON, 2 * SEASON):
            raise ValueError(
                "an autoencoder reconstructs its inputs, so the targets must be the "
                "input frames, with or without their calendar channels; got "
                f"input_shape {tuple(self.input_shape)} and target_shape "
                f"{tuple(self.target_shape)}. Set out_len=0 to get such examples"
            )
        if self.cell not in CELLS:
            raise ValueError(f"cell must be one of {tuple(CELLS)}; got {self.cell!r}")
        unknown = set(self.cell_options) - set(CELLS[self.cell].__dataclass_fields__)
        if unknown:
            raise ValueError(
                f"cell_options: the cell {self.cell!r} has no option "
                f"{', '.join(sorted(unknown))}"
            )
        if self.embedding % max(self.heads, 1):
            raise ValueError(
                f"heads must divide embedding; got {self.heads} heads for an embedding "
                f"of {self.embedding}"
            )
        if calendar and 2 * self.harmonics > self.embedding:
            raise ValueError(
                f"harmonics={self.harmonics} needs an embedding of at least "
                f"{2 * self.harmonics}; got {self.embedding}"
            )

    @property
    def plane(self) -> tuple[int, int]:
        """Height and width of the planes that the cells work on."""
        whole = math.prod(self.strides)
        height, width = self.input_shape[1:3]
        return -(-height // whole), -(-width // whole)

    @property
    def has_calendar(self) -> bool:
        """Whether the inputs contain the season."""
        return self.input_shape[-1] > self.target_shape[-1]

    def setup(self):
        """Makes the parts."""
        self.check()
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        kernel = (3, 3)
        self.down = [
            Conv(self.features, kernel, (stride, stride), padding="SAME", **types)
            for stride in self.strides
        ]
        cell_options = dict(
            filters=self.features,
            kernel_size=self.cell_kernel,
            padding="same",
            return_sequences=True,
            remat=self.remat,
            **types,
        )
        cell_options |= dict(self.cell_options)
        self.encoder = CELLS[self.cell](**cell_options)
        self.head = SubspaceHead(
            features=self.embedding,
            plane_features=self.plane_features,
            heads=self.heads,
            hidden=self.hidden,
            harmonics=self.harmonics if self.has_calendar else 0,
            **types,
        )
        self.lay_out = Linear(
            math.prod(self.plane) * (self.plane_features or self.features), **types
        )
        self.decoder = CELLS[self.cell](**cell_options)
        self.up = [
            Conv(self.features, kernel, padding="SAME", **types) for _ in self.strides
        ]
        self.restore = Conv(self.target_shape[-1], (1, 1), **types)

    def __call__(self, inputs: jax.Array, *, train: bool = False) -> jax.Array:
        """Embeds and restores.

        Args:
            inputs: `[b, T, H, W, C_in]`.
            train: whether the cells apply dropout (needs the rng "dropout").

        Returns:
            float32 `[b, T, H, W, C_out]`.

        Raises:
            ValueError: for inconsistent options, or inputs whose shape
                is not `input_shape`.
        """
        return self.decode(self.embed(inputs, train=train), train=train)

    def embed(self, inputs: jax.Array, *, train: bool = False) -> jax.Array:
        """`[b, T, H, W, C_in]` to `[b, T, embedding]`."""
        check_inputs(inputs, self.input_shape)
        channels = self.target_shape[-1]
        x, calendar = inputs[..., :channels], inputs[:, :, 0, 0, channels:]
        whole = math.prod(self.strides)
        grow = [(0, -size % whole) for size in self.input_shape[1:3]]
        x = jnp.pad(x, ((0, 0), (0, 0), *grow, (0, 0)), mode="edge")
        for conv in self.down:
            x = nn.leaky_relu(each_frame(conv, x), LEAKY_SLOPE)
        states = self.encoder(x, train=train)
        self.sow("intermediates", "states", states)
        if not self.has_calendar:
            return self.head(states)
        turns = jnp.arctan2(calendar[..., 1], calendar[..., 0]) / (2 * jnp.pi)
        return self.head(states, day=YEAR * turns)

    def decode(self, embeddings: jax.Array, *, train: bool = False) -> jax.Array:
        """`[b, T, embedding]` to float32 `[b, T, H, W, C_out]`."""
        h, w = self.plane
        x = einops.rearrange(
            self.lay_out(embeddings), "b t (h w c) -> b t h w c", h=h, w=w
        )
        x = self.decoder(x, train=train)
        for conv, stride in zip(self.up, reversed(self.strides), strict=True):
            x = einops.repeat(x, "b t h w c -> b t (h u) (w v) c", u=stride, v=stride)
            x = nn.leaky_relu(each_frame(conv, x), LEAKY_SLOPE)
        x = self.restore(x)
        height, width = self.target_shape[1:3]
        return x[:, :, :height, :width].astype(jnp.promote_types(x.dtype, jnp.float32))
