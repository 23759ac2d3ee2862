"""S-PROG: the rain moves on as in the last frames, and small features fade."""

import jax

from earthformer_jax.models.bases.advection import Advection
from earthformer_jax.ops.nowcasting import sprog


class SProg(Advection):
    """The expected rain of the next frames, `ops.nowcasting.sprog`.

    As `Advection`, but T is at least 3. Inputs are rain in logarithmic units.
    """

    def check(self) -> None:
        """Raises ValueError for shapes that do not show how rain changes."""
        super().check()
        if self.input_shape[0] < sprog.FRAMES:
            raise ValueError(
                f"input frames={self.input_shape[0]} do not show how rain changes; "
                f"expected at least {sprog.FRAMES}"
            )

    @staticmethod
    def following(frames: jax.Array, flow: jax.Array, steps: int) -> jax.Array:
        """As of `Advection`, the expected frames."""
        return sprog.s_prog(frames, flow, steps)
