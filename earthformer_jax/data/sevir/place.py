"""Latitudes and longitudes of the pixels of an event, from its row in the catalog.

Two of the projections that the column `proj` may name (in the words of PROJ) are known:
the Lambert azimuthal equal-area projection of a sphere, which is SEVIR's, and plain
longitudes and latitudes. Corners are those of the outer pixels' outer edges.

Reference:
    Snyder 1987, Map Projections: A Working Manual, USGS Professional Paper 1395,
    equations 20-14, 20-15, 22-4, 22-5 and 24-2 to 24-4.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

PLAIN = ("longlat", "latlong")
EQUAL_AREA = "laea"


@dataclasses.dataclass(frozen=True)
class EqualArea:
    """The Lambert azimuthal equal-area projection of a sphere.

    Attributes:
        latitude: of the centre, degrees north.
        longitude: of the centre, degrees east.
        radius: of the sphere in metres.
    """

    latitude: float
    longitude: float
    radius: float

    def forward(self, latitude, longitude) -> tuple[np.ndarray, np.ndarray]:
        """Metres east and north of the centre, of degrees north and east."""
        phi, centre = np.radians(latitude), np.radians(self.latitude)
        east = np.radians(np.asarray(longitude) - self.longitude)
        ahead = np.cos(phi) * np.cos(east)
        nearness = np.sin(centre) * np.sin(phi) + np.cos(centre) * ahead
        scale = self.radius * np.sqrt(2 / (1 + nearness))
        x = scale * np.cos(phi) * np.sin(east)
        y = scale * (np.cos(centre) * np.sin(phi) - np.sin(centre) * ahead)
        return x, y

    def inverse(self, x, y) -> tuple[np.ndarray, np.ndarray]:
        """Degrees north and east of metres east and north of the centre."""
        centre, distance = np.radians(self.latitude), np.hypot(x, y)
        angle = 2 * np.arcsin(distance / (2 * self.radius))
        # sin(angle) / distance, also where both are 0.
        ratio = np.cos(angle / 2) / self.radius
        sine = np.cos(angle) * np.sin(centre) + y * ratio * np.cos(centre)
        ahead = np.cos(centre) * np.cos(angle) - y * ratio * np.sin(centre)
        longitude = self.longitude + np.degrees(np.arctan2(x * ratio, ahead))
        return np.degrees(np.arcsin(sine)), longitude


def pixels(
    projection: str, corners: np.ndarray, size: Sequence[int]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Degrees north and east of the centres of pixels, the first row in the south.

    Args:
        projection: in the words of PROJ, "+proj=laea +lat_0=38 ...".
        corners: `[4]`, latitude and longitude of the lower left corner, then of the
            upper right one.
        size: number of rows and columns.

    Returns:
        `[h]` and `[w]` of plain longitudes and latitudes, otherwise `[h, w]` each; None
        if the projection is another one or a corner is unknown.
    """
    corners = np.asarray(corners, np.float64)
    words = [word.lstrip("+").partition("=") for word in projection.split()]
    terms = {name: value for name, _, value in words}
    if not np.isfinite(corners).all() or terms.get("proj") not in (*PLAIN, EQUAL_AREA):
        return None
    (south, west), (north, east) = corners.reshape(2, 2)
    if terms["proj"] in PLAIN:
        return _centres(south, north, size[0]), _centres(west, east, size[1])
    known = _equal_area(terms)
    if known is None:
        return None
    (left, right), (bottom, top) = known.forward((south, north), (west, east))
    return known.inverse(
        *np.meshgrid(_centres(left, right, size[1]), _centres(bottom, top, size[0]))
    )


def _equal_area(terms: dict[str, str]) -> EqualArea | None:
    """The projection of some terms; None if it is not of a sphere."""
    understood = {"proj", "lat_0", "lon_0", "a", "R", "ellps", "units", "no_defs"}
    if set(terms) - understood or terms.get("ellps", "sphere") != "sphere":
        return None
    try:
        radius = float(terms.get("a") or terms["R"])
        centre = float(terms["lat_0"]), float(terms["lon_0"])
    except (KeyError, ValueError):
        return None
    return EqualArea(*centre, radius)


def _centres(first: float, last: float, count: int) -> np.ndarray:
    """Centres of `count` equal parts of an interval."""
    return first + (last - first) * (np.arange(count) + 0.5) / count
