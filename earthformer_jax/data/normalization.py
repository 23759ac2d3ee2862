"""Conversion between physical values and model units."""

import dataclasses
from typing import Protocol

import numpy as np


class Normalization(Protocol):
    """An invertible map between physical values and model units.

    Values are `[..., h, w, c]` with all channels of the data set or the first few, so
    that it applies to both inputs and targets.
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
    """Model units = (value - offset) / scale, independent of place and time.

    Attributes:
        scale: physical units per model unit.
        offset: physical value that becomes 0.
    """

    scale: float = 1.0
    offset: float = 0.0

    def encode(self, values, minutes=None):
        """Model units of physical values; `minutes` is ignored."""
        del minutes
        units = values - self.offset
        if isinstance(units, np.ndarray) and np.issubdtype(units.dtype, np.floating):
            units /= self.scale
            return units
        return units / self.scale

    def decode(self, x, minutes=None):
        """Physical values of model units; `minutes` is ignored."""
        del minutes
        return x * self.scale + self.offset
