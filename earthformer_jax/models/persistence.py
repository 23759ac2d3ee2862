"""Persistence: nothing changes. The forecast that every other one has to beat."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


class Persistence(nn.Module):
    """Repeats the last input frame; has no parameters.

    Attributes:
        input_shape: (T, H, W, C_in).
        target_shape: (K, H, W, C_out) with C_out of at most C_in; the targets are the
            first channels of the inputs.
        dtype: of no effect, as nothing is computed.
        param_dtype: of no effect.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def check(self) -> None:
        """Raises ValueError for shapes that do not go together."""
        for name, shape in (
            ("input_shape", self.input_shape),
            ("target_shape", self.target_shape),
        ):
            if len(shape) != 4 or min(shape) < 1:
                raise ValueError(
                    f"{name} needs four positive integers (T, H, W, C); "
                    f"got {tuple(shape)}"
                )
        if tuple(self.input_shape[1:3]) != tuple(self.target_shape[1:3]):
            raise ValueError(
                "input and target need the same height and width; got input_shape "
                f"{tuple(self.input_shape)} and target_shape "
                f"{tuple(self.target_shape)}"
            )
        if self.target_shape[3] > self.input_shape[3]:
            raise ValueError(
                f"persistence cannot forecast {self.target_shape[3]} channels from "
                f"inputs of {self.input_shape[3]}; the targets must be the first "
                "channels of the inputs"
            )

    @nn.compact
    def __call__(self, inputs: jax.Array, *, train: bool = False) -> jax.Array:
        """Repeats the first channels of the last frame K times.

        Args:
            inputs: `[b, T, H, W, C_in]`.
            train: of no effect.

        Returns:
            float32 `[b, K, H, W, C_out]`.

        Raises:
            ValueError: for shapes that do not go together, or inputs of another shape
                than `input_shape`.
        """
        self.check()
        if tuple(inputs.shape[1:]) != tuple(self.input_shape):
            raise ValueError(
                "inputs need shape (batch, T, H, W, C) = "
                f"(batch, {', '.join(map(str, self.input_shape))}); "
                f"got {tuple(inputs.shape)}"
            )
        steps, *_, channels = self.target_shape
        last = inputs[:, -1:, ..., :channels]
        forecast = jnp.repeat(last, steps, axis=1)
        return forecast.astype(jnp.promote_types(inputs.dtype, jnp.float32))
