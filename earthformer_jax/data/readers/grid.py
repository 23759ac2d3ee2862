"""Regular latitude-longitude grids and area means over boxes.

Latitudes are degrees north, ascending. Longitudes are degrees east, ascending, from 0
to 360; a region that crosses Greenwich continues above 360.
"""

import dataclasses

import numpy as np

# A cell size may differ by this share from the median, to allow Gaussian latitudes.
SPACING_TOLERANCE = 0.1
# A box mean is trusted when observed cells cover this share of the box area.
BOX_COVERAGE = 0.95


@dataclasses.dataclass(frozen=True)
class Box:
    """A latitude-longitude rectangle in degrees; west and east lie in 0..360."""

    name: str
    south: float
    north: float
    west: float
    east: float

    def __str__(self) -> str:
        return (
            f"{self.name} ({_latitude(self.south)}-{_latitude(self.north)}, "
            f"{self.west:g}E-{self.east:g}E)"
        )


# Trenberth 1997, "The definition of El Nino": 5S-5N, 170W-120W.
NINO34 = Box("Nino3.4", south=-5.0, north=5.0, west=190.0, east=240.0)
NINO3 = Box("Nino3", south=-5.0, north=5.0, west=210.0, east=270.0)
NINO4 = Box("Nino4", south=-5.0, north=5.0, west=160.0, east=210.0)
NINO12 = Box("Nino1+2", south=-10.0, north=0.0, west=270.0, east=280.0)


@dataclasses.dataclass(frozen=True)
class Grid:
    """Cell centres and an ocean mask.

    Attributes:
        latitude: degrees north `[h]`, ascending.
        longitude: degrees east `[w]`, ascending.
        ocean: bool `[h, w]`, True where values are observed.
    """

    latitude: np.ndarray
    longitude: np.ndarray
    ocean: np.ndarray

    def __str__(self) -> str:
        south, north = self.latitude[[0, -1]]
        west, east = self.longitude[[0, -1]]
        return (
            f"{len(self.latitude)} x {len(self.longitude)} cells "
            f"{_latitude(south)}..{_latitude(north)} {west:g}E..{east:g}E "
            f"({int(self.ocean.sum())} ocean)"
        )


def _latitude(degrees: float) -> str:
    return f"{abs(degrees):g}{'S' if degrees < 0 else 'N'}"


def order_longitude(longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices that sort longitudes eastwards, and the sorted longitudes.

    Args:
        longitude: degrees east `[w]`, evenly spaced; their order on the circle does not
            matter.

    Returns:
        order `[w]`, and longitudes `[w]`: ascending from 0..360; those of a region that
        crosses Greenwich continue above 360.

    Raises:
        ValueError: if longitudes repeat, or are not evenly spaced.
    """
    circle = np.asarray(longitude, np.float64) % 360.0
    order = np.argsort(circle, kind="stable")
    ordered = circle[order]
    steps = np.diff(ordered)
    if np.any(steps < 1e-6):
        twice = ordered[np.argmax(steps < 1e-6)]
        raise ValueError(
            f"longitude {twice:g} occurs twice (0 and 360 are the same meridian); "
            "remove one of the columns"
        )
    gap_at_greenwich = ordered[0] + 360.0 - ordered[-1]
    if steps.size and steps.max() > max(gap_at_greenwich, 2 * np.median(steps)):
        first = int(np.argmax(steps)) + 1  # the region starts east of its largest gap
        order = np.roll(order, -first)
        ordered = np.concatenate([ordered[first:], ordered[:first] + 360.0])
    check_spacing(ordered, "longitude")
    return order, ordered


def check_spacing(centres: np.ndarray, axis: str) -> None:
    """Rejects cell centres that do not ascend in nearly equal steps.

    Raises:
        ValueError: if they do not; the message names `axis` and the first uneven step.
    """
    if centres.size < 2:
        raise ValueError(
            f"the grid has {centres.size} {axis} value(s); at least 2 are needed"
        )
    steps = np.diff(centres)
    typical = np.median(steps)
    wrong = np.abs(steps - typical) > SPACING_TOLERANCE * abs(typical)
    if typical <= 0 or np.any(wrong):
        at = int(np.argmax(wrong))
        raise ValueError(
            f"{axis} is not evenly spaced: {centres[at]:g} is followed by "
            f"{centres[at + 1]:g}, but the typical step is {typical:g} degrees; "
            "interpolate the data to a regular latitude-longitude grid first"
        )


def cell_edges(centres: np.ndarray) -> np.ndarray:
    """Edges `[n + 1]` halfway between ascending centres `[n]`; half a step outside."""
    centres = np.asarray(centres, np.float64)
    middle = (centres[:-1] + centres[1:]) / 2
    first, last = 2 * centres[0] - middle[0], 2 * centres[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])


def _overlap(edges: np.ndarray, low: float, high: float) -> np.ndarray:
    """Length `[n]` of the part of each cell between low and high."""
    return np.maximum(
        np.minimum(edges[1:], high) - np.maximum(edges[:-1], low),
        0.0,
    )


def box_area(latitude: np.ndarray, longitude: np.ndarray, box: Box) -> np.ndarray:
    """The part of a box that each cell covers, as a share of the box's area.

    The area of a cell is cos(latitude of its centre) times its extent in degrees.

    Args:
        latitude: degrees north `[h]`, ascending.
        longitude: degrees east `[w]`, ascending.
        box: the box.

    Returns:
        `[h, w]`, non-negative. Sums to 1 if the grid covers the box, up to the change
        of the cosine across a cell.
    """
    latitude = np.asarray(latitude, np.float64)
    rows = _overlap(np.clip(cell_edges(latitude), -90, 90), box.south, box.north)
    rows *= np.cos(np.deg2rad(latitude))
    edges = cell_edges(longitude)
    columns = np.zeros(len(edges) - 1)
    for turn in (-360, 0, 360):
        columns += _overlap(edges, box.west + turn, box.east + turn)
    north, south = np.sin(np.deg2rad([box.north, box.south]))
    area = np.rad2deg(north - south) * (box.east - box.west)
    return rows[:, None] * columns[None, :] / area


def box_weights(grid: Grid, box: Box = NINO34) -> np.ndarray:
    """Weights of the ocean's area mean over a box.

    Args:
        grid: cells and ocean mask.
        box: the box to average over.

    Returns:
        float64 `[h, w]`, zero outside the box and on land, summing to 1.

    Raises:
        ValueError: if ocean cells cover too little of the box.
    """
    weights = box_area(grid.latitude, grid.longitude, box) * grid.ocean
    covered = weights.sum()
    if covered < BOX_COVERAGE:
        raise ValueError(
            f"the grid of {grid} covers {covered:.0%} of {box}; at least "
            f"{BOX_COVERAGE:.0%} must be observed to compute the index"
        )
    return weights / covered


def point_weights(grid: Grid, box: Box = NINO34) -> np.ndarray:
    """Equal weights of the cells whose centres lie in a box, including its border.

    The convention of the ICAR-ENSO index; `box_weights` is the area mean.

    Returns:
        float64 `[h, w]`, summing to 1.

    Raises:
        ValueError: if no cell centre lies in the box.
    """
    rows = (grid.latitude >= box.south) & (grid.latitude <= box.north)
    columns = (grid.longitude >= box.west) & (grid.longitude <= box.east)
    inside = rows[:, None] & columns[None, :]
    if not inside.any():
        raise ValueError(f"the grid of {grid} has no cell centre in {box}")
    return inside / inside.sum()
