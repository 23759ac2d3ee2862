"""Empirical orthogonal functions of fields on a latitude-longitude grid."""

import dataclasses

import numpy as np

RANK_TOLERANCE = 1e-10  # of the largest variance; smaller ones are rounding errors


@dataclasses.dataclass(frozen=True, eq=False)
class EofBasis:
    """The leading patterns of a set of fields, with projection and reconstruction.

    Attributes:
        ocean_mask: `[h, w]` bool, the cells with values.
        patterns: `[k, cells]`, the field for unit amplitude of each EOF.
        projection: `[cells, k]`, least squares (by area) from field to amplitudes.
        variance: `[k]`, mean square of each amplitude.
    """

    ocean_mask: np.ndarray
    patterns: np.ndarray
    projection: np.ndarray
    variance: np.ndarray

    def amplitudes(self, fields) -> np.ndarray:
        """`[..., h, w]` fields to `[..., k]` amplitudes."""
        cells = np.asarray(fields)[..., self.ocean_mask]
        return np.tensordot(cells, self.projection, axes=1)

    def fields(self, amplitudes) -> np.ndarray:
        """`[..., k]` amplitudes to `[..., h, w]` fields, zero on land."""
        return on_grid(synthesis(amplitudes, self.patterns), self.ocean_mask)

    def part(self, chosen: slice) -> "EofBasis":
        """Some of the EOFs."""
        return EofBasis(
            self.ocean_mask,
            self.patterns[chosen],
            self.projection[:, chosen],
            self.variance[chosen],
        )


def synthesis(amplitudes, patterns) -> np.ndarray:
    """Sum of patterns: `[..., k]` amplitudes and `[k, cells]` to `[..., cells]`.

    einsum, not matmul: for one window at a time the threads of a BLAS cost more than
    they gain, especially when training keeps all cores busy.
    """
    return np.einsum("...k,kc->...c", amplitudes, patterns)


def on_grid(cells, ocean_mask) -> np.ndarray:
    """`[..., cells]` ocean values to `[..., h, w]` fields, zero on land."""
    fields = np.zeros(cells.shape[:-1] + ocean_mask.shape, cells.dtype)
    fields[..., ocean_mask] = cells
    return fields


def fit_eofs(series, ocean_mask, latitude, modes: int | None = None) -> EofBasis:
    """EOFs of monthly anomalies, cells weighted by area (cosine of latitude).

    The anomalies are taken as they are: no mean is removed.

    Args:
        series: list of `[months, h, w]` anomalies, finite over the ocean.
        ocean_mask: `[h, w]` bool.
        latitude: `[h]`, degrees north.
        modes: EOFs to keep; None: all with nonzero variance.

    Raises:
        ValueError: on values that are not finite, or fewer EOFs than `modes`.
    """
    ocean_mask = np.asarray(ocean_mask, bool)
    root_area = np.sqrt(np.cos(np.deg2rad(np.asarray(latitude, np.float64))))
    root_area = np.broadcast_to(root_area[:, None], ocean_mask.shape)[ocean_mask]
    parts = [np.asarray(x, np.float64)[:, ocean_mask] * root_area for x in series]
    if not all(np.all(np.isfinite(part)) for part in parts):
        raise ValueError("anomalies over the ocean must be finite")
    variance, vectors = _principal_axes(np.concatenate(parts))
    rank = int(np.sum(variance > RANK_TOLERANCE * variance[0]))
    if modes is not None and rank < modes:
        raise ValueError(f"these fields have {rank} EOFs, fewer than modes={modes}")
    keep = slice(None, rank if modes is None else modes)
    return EofBasis(
        ocean_mask,
        (vectors / root_area[:, None]).T[keep],
        (vectors * root_area[:, None])[:, keep],
        variance[keep],
    )


def _principal_axes(cells) -> tuple[np.ndarray, np.ndarray]:
    """Variances `[k]` and unit vectors `[cells, k]`, the largest variance first.

    Of `[months, cells]`, the smaller of the two covariance matrices is decomposed.
    """
    months = len(cells)
    if months >= cells.shape[1]:
        variance, vectors = np.linalg.eigh(cells.T @ cells / months)
        return variance[::-1], vectors[:, ::-1]
    variance, weights = np.linalg.eigh(cells @ cells.T / months)
    variance, weights = variance[::-1], weights[:, ::-1]
    length = np.sqrt(np.maximum(variance, RANK_TOLERANCE * variance[0]) * months)
    return variance, cells.T @ weights / length
