"""From physical values to those a model sees, and back."""

import dataclasses
from typing import Protocol

import numpy as np


class Normalization(Protocol):
    """An invertible map between physical values and model units.

    Values are `[..., h, w, c]`, the first channels of the data set or all of them, so
    that both inputs and targets can be given.
    """

    def encode(
        self, values: np.ndarray, minutes: np.ndarray | None = None
    ) -> np.ndarray:
        """Model units of physical values.

        Args:
            values: `[..., h, w, c]`.
            minutes: `[...]` since 1970-01-01 UTC, for normalisations that depend on
                time; None if unknown.
        """
        ...

    def decode(self, x: np.ndarray, minutes: np.ndarray | None = None) -> np.ndarray:
        """Physical values of model units; the inverse of `encode`."""
        ...


@dataclasses.dataclass(frozen=True)
class Affine:
    """Model units = (value - offset) / scale, everywhere and always the same.

    Attributes:
        scale: physical units per model unit.
        offset: physical value of 0.
    """

    scale: float = 1.0
    offset: float = 0.0

    def encode(self, values, minutes=None):
        """Model units of physical values; time makes no difference."""
        del minutes
        return (values - self.offset) / self.scale

    def decode(self, x, minutes=None):
        """Physical values of model units; time makes no difference."""
        del minutes
        return x * self.scale + self.offset
