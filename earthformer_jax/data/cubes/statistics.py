"""Statistics of the training period: means, standard deviations, climatology."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from earthformer_jax.data.climatology import Climatology, fit_climatology, harmonics
from earthformer_jax.data.readers.times import period_text

if TYPE_CHECKING:
    from earthformer_jax.data.readers.series import Cube

SAMPLE_BYTES = 2**28  # most of the training period that statistics are taken from
SAMPLE_PIECES = 64


@dataclasses.dataclass(frozen=True)
class Normalizer:
    """Converts between the units of the file and those of the model.

    x = (value - offset) / scale, or (value - climatology) / scale.

    Attributes:
        scale: float32 `[c]`.
        offset: float32 `[c]`; 0 where a climatology is removed.
        counted: bool `[h, w, c]`: observed at some time of the training period.
        climatology: removed from the values; None: `offset` is removed.
    """

    scale: np.ndarray
    offset: np.ndarray
    counted: np.ndarray
    climatology: Climatology | None = None

    def encode(
        self, values: np.ndarray, minutes: np.ndarray | None = None
    ) -> np.ndarray:
        """float32 `[..., h, w, c]`; NaN where missing or never observed in training.

        Args:
            values: `[..., h, w, c]` in the units of the file; all channels or the
                first few.
            minutes: `[...]` since 1970-01-01 UTC; None if unknown.
        """
        c = values.shape[-1]
        x = (values - self._base(minutes)[..., :c]) / self.scale[:c]
        return np.where(self.counted[..., :c], x, np.float32(np.nan))

    def decode(self, x: np.ndarray, minutes: np.ndarray | None = None) -> np.ndarray:
        """The inverse of `encode`; NaN where never observed in training."""
        c = x.shape[-1]
        values = x * self.scale[:c] + self._base(minutes)[..., :c]
        return np.where(self.counted[..., :c], values, np.float32(np.nan))

    def departures(self, x: np.ndarray) -> np.ndarray:
        """Departures from the climatology in the units of the file, of model units.

        NaN where never observed in training.
        """
        c = x.shape[-1]
        return np.where(self.counted[..., :c], x * self.scale[:c], np.float32(np.nan))

    def _base(self, minutes: np.ndarray | None) -> np.ndarray:
        """The value that becomes 0 in model units, `[..., h, w, c]` or `[c]`."""
        return self.offset if self.climatology is None else self.climatology.at(minutes)

    def of_climatology(self, climatology: Climatology, minutes) -> np.ndarray:
        """A climatology `[..., h, w, c]` in model units; 0 where never observed."""
        x = (climatology.at(minutes) - self.offset) / self.scale
        return np.where(self.counted, x, np.float32(0))


def sample(
    cube: "Cube", start: int, stop: int, limit: int = SAMPLE_BYTES
) -> tuple[np.ndarray, np.ndarray | None]:
    """Values and minutes of frames start..stop - 1, or of pieces spread over them.

    Returns:
        values `[n, h, w, c]` and their minutes `[n]` or None, for all frames or for
        about `limit` bytes of them.
    """
    frame_bytes = 4 * int(np.prod(cube.frames.shape[1:], dtype=np.int64))
    most = max(1, limit // frame_bytes)
    frames = stop - start
    if frames <= most:
        minutes = None if cube.minutes is None else cube.minutes[start:stop]
        return cube.frames.read(start, stop), minutes
    pieces = min(SAMPLE_PIECES, most)
    length = most // pieces
    rng = np.random.default_rng(0)  # every n-th frame could always be the same hour
    edges = np.linspace(start, stop - length, pieces + 1)
    firsts = np.unique(rng.uniform(edges[:-1], edges[1:]).astype(np.int64))
    chosen = np.unique(firsts[:, None] + np.arange(length))
    breaks = np.flatnonzero(np.diff(chosen) > 1) + 1
    parts = [cube.frames.read(p[0], p[-1] + 1) for p in np.split(chosen, breaks)]
    minutes = None if cube.minutes is None else cube.minutes[chosen]
    return np.concatenate(parts), minutes


def fit_normalizer(
    cube: "Cube", period: tuple[int, int], anomalies: bool
) -> tuple[Normalizer, str]:
    """The normalisation fitted to the training period, and a description of it.

    Args:
        cube: the data.
        period: first training frame and end.
        anomalies: remove the climatology rather than only the mean.

    Raises:
        ValueError: if a variable is missing everywhere or constant, or if the
            climatology cannot be estimated.
    """
    values, minutes = sample(cube, *period)
    known = np.isfinite(values)
    counted = np.asarray(np.any(known, axis=0))
    for c, name in enumerate(cube.names):
        if not counted[..., c].any():
            raise ValueError(
                f"{cube.label}: all values of {name!r} are missing in the training "
                f"period ({_period_text(minutes, len(values))})"
            )
    whole = "" if len(values) == period[1] - period[0] else f" of {len(values)} frames"
    climatology = None
    if anomalies:
        annual, daily = harmonics(minutes, cube.cadence)
        if not annual and not daily:
            raise ValueError(
                "anomalies=True needs dates and a training period of at least a year "
                f"to estimate the seasonal cycle; that of {cube.label} is "
                f"{_period_text(minutes, len(values))}. Set it to False"
            )
        climatology = fit_climatology(values, minutes, annual, daily)
        values = values - climatology.at(minutes)
    axes = (0, 1, 2)
    count = known.sum(axis=axes, dtype=np.int64)
    mean = np.sum(values, axis=axes, dtype=np.float64, where=known) / count
    squares = np.sum(
        np.square(values - mean.astype(np.float32), dtype=np.float32),
        axis=axes,
        dtype=np.float64,
        where=known,
    )
    scale = np.sqrt(squares / count)
    for c, name in enumerate(cube.names):
        if not scale[c] > (0 if anomalies else 1e-6 * abs(mean[c])):
            raise ValueError(
                f"{cube.label}: {name!r} is {mean[c]:g} everywhere in the training "
                "period, so there is nothing to learn. Leave it out of `variables`"
            )
    kind = "(x - mean) / standard deviation"
    if climatology is not None:
        kind = f"anomalies ({climatology}) / standard deviation"
    text = f"{kind} of the training period{whole}"
    normalizer = Normalizer(
        scale=scale.astype(np.float32),
        offset=(0 * mean if anomalies else mean).astype(np.float32),
        counted=counted,
        climatology=climatology,
    )
    return normalizer, text


def _period_text(minutes: np.ndarray | None, frames: int) -> str:
    if minutes is None:
        return f"{frames} frames"
    return f"{period_text(minutes)}, {frames} frames"
