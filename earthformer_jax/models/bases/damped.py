"""Damped persistence: the last anomaly, which fades with the lead time."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.models.persistence import check_channels
from earthformer_jax.models.shapes import check_inputs, check_shapes


class DampedPersistence(nn.Module):
    """The last input frame, damped towards a constant.

        forecast[k] = center + factors[k] * (last input - center)

    Both arrays are constants in the collection `batch_stats`.

    Attributes:
        input_shape: (T, H, W, C_in).
        target_shape: (K, H, W, C_out) with C_out of at most C_in; the targets are the
            first channels of the inputs.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]

    def check(self) -> None:
        """Raises ValueError for inconsistent shapes."""
        check_shapes(self.input_shape, self.target_shape)
        check_channels(self.input_shape, self.target_shape)

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Float32 forecast `[b, K, H, W, C_out]` of inputs `[b, T, H, W, C_in]`."""
        check_inputs(inputs, self.input_shape)
        channels = self.target_shape[-1]
        factors = self.variable("batch_stats", "factors", jnp.zeros, self.target_shape)
        center = self.variable("batch_stats", "center", jnp.zeros, (channels,))
        last = inputs[:, -1:, ..., :channels].astype(jnp.float32)
        return center.value + factors.value * (last - center.value)
