"""Advection: what the last frame shows moves on as the frames before it moved."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.models.persistence import check_channels
from earthformer_jax.models.shapes import check_inputs, check_shapes
from earthformer_jax.ops.nowcasting.motion import FRAMES, motion
from earthformer_jax.ops.nowcasting.semi_lagrangian import extrapolate


class Advection(nn.Module):
    """The last frame, moved on with the motion of the last input frames.

    It has neither parameters nor constants. Values at the edge stay where something
    flows in from outside.

    Attributes:
        input_shape: (T, H, W, C_in) with T of at least 2.
        target_shape: (K, H, W, C_out) with C_out of at most C_in; the targets are the
            first channels of the inputs, and move together.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]

    def check(self) -> None:
        """Raises ValueError for shapes that show no motion."""
        check_shapes(self.input_shape, self.target_shape)
        check_channels(self.input_shape, self.target_shape)
        if self.input_shape[0] < 2:
            raise ValueError("one input frame shows no motion; expected at least 2")

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Float32 forecast `[b, K, H, W, C_out]` of inputs `[b, T, H, W, C_in]`."""
        check_inputs(inputs, self.input_shape)
        steps, *_, channels = self.target_shape
        frames = inputs[:, -FRAMES:, ..., :channels].astype(jnp.float32)
        return jax.vmap(lambda x: self.following(x, motion(x), steps))(frames)

    @staticmethod
    def following(frames: jax.Array, flow: jax.Array, steps: int) -> jax.Array:
        """The next frames `[steps, h, w, c]` of `[t, h, w, c]` with a motion."""
        return extrapolate(frames[-1], flow, steps)
