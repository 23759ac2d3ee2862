"""Persistence, the forecast of no change: the baseline every other has to beat."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.checks import check_fields
from earthformer_jax.models.shapes import check_inputs, check_shapes


class Persistence(nn.Module):
    """Repeats the last input frame; has no parameters.

    Attributes:
        input_shape: (T, H, W, C_in).
        target_shape: (K, H, W, C_out) with C_out of at most C_in; the targets are the
            first channels of the inputs.
        dtype: ignored, as nothing is computed.
        param_dtype: ignored.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def check(self) -> None:
        """Raises ValueError for inconsistent shapes."""
        check_shapes(self.input_shape, self.target_shape)
        check_fields(self)
        check_channels(self.input_shape, self.target_shape)

    @nn.compact
    def __call__(self, inputs: jax.Array, *, train: bool = False) -> jax.Array:
        """Repeats the first channels of the last frame K times.

        Args:
            inputs: `[b, T, H, W, C_in]`.
            train: ignored.

        Returns:
            float32 `[b, K, H, W, C_out]`.

        Raises:
            ValueError: for inconsistent shapes, or inputs whose shape
                is not `input_shape`.
        """
        self.check()
        check_inputs(inputs, self.input_shape)
        steps, *_, channels = self.target_shape
        last = inputs[:, -1:, ..., :channels]
        forecast = jnp.repeat(last, steps, axis=1)
        return forecast.astype(jnp.promote_types(inputs.dtype, jnp.float32))


def check_channels(input_shape: Sequence[int], target_shape: Sequence[int]) -> None:
    """Rejects targets that cannot be the first channels of the inputs.

    Raises:
        ValueError: with both numbers.
    """
    if target_shape[3] > input_shape[3]:
        raise ValueError(
            f"persistence cannot forecast {target_shape[3]} channels from inputs of "
            f"{input_shape[3]}; the targets must be the first channels of the inputs"
        )
