"""S-PROG: the rain moves on as in the last frames, and small features fade."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.models.persistence import check_channels
from earthformer_jax.models.shapes import check_inputs, check_shapes
from earthformer_jax.ops.nowcasting import sprog
from earthformer_jax.ops.nowcasting.motion import FRAMES, motion


class SProg(nn.Module):
    """The expected rain of the next frames, `ops.nowcasting.sprog`.

    It has neither parameters nor constants. Inputs are rain in logarithmic units.

    Attributes:
        input_shape: (T, H, W, C_in) with T of at least 3.
        target_shape: (K, H, W, C_out) with C_out of at most C_in; the targets are the
            first channels of the inputs, and move together.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]

    def check(self) -> None:
        """Raises ValueError for shapes that do not show how rain changes."""
        check_shapes(self.input_shape, self.target_shape)
        check_channels(self.input_shape, self.target_shape)
        if self.input_shape[0] < sprog.FRAMES:
            raise ValueError(
                f"input frames={self.input_shape[0]} do not show how rain changes; "
                f"expected at least {sprog.FRAMES}"
            )

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Float32 forecast `[b, K, H, W, C_out]` of inputs `[b, T, H, W, C_in]`."""
        check_inputs(inputs, self.input_shape)
        steps, *_, channels = self.target_shape
        frames = inputs[:, -FRAMES:, ..., :channels].astype(jnp.float32)
        return jax.vmap(lambda x: sprog.s_prog(x, motion(x), steps))(frames)
