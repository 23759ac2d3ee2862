"""What training expects of a loss."""

from typing import Any, ClassVar, Protocol

import jax
import numpy as np


class Loss(Protocol):
    """A pure function of a forecast and what came true; a frozen dataclass of options.

    The loss of a batch is the mean of those of its examples, so that micro-batches and
    devices add up.

    Attributes:
        takes_members: whether forecasts are `[m, b, k, h, w, c]`, members first; else
            they are `[b, k, h, w, c]`.
    """

    takes_members: ClassVar[bool]

    def __call__(
        self,
        forecast: jax.Array,
        targets: jax.Array,
        weights: np.ndarray,
        observed: jax.Array | None = None,
        *,
        key: Any = None,
        progress: jax.Array | None = None,
    ) -> jax.Array:
        """The loss of a batch.

        Args:
            forecast: as `takes_members` says.
            targets: `[b, k, h, w, c]`; values where the weight is 0 have no effect.
            weights: broadcastable to `[k, h, w, c]`, non-negative, 0 where nothing is
                ever observed.
            observed: bool, like `targets`; False where this target is unknown.
            key: of the random numbers of this step, for losses that draw.
            progress: share of the training that is done, from 0 to 1, for losses that
                change with it; None: unknown, which counts as 0.

        Returns:
            Scalar, float32.

        Raises:
            ValueError: for arrays of other shapes.
        """
        ...
