"""Where the pixels of radar images are."""

import numpy as np
import pytest

from earthformer_jax.data.sevir import place

# An event of SEVIR, as its catalog describes it.
SEVIR = "+proj=laea +lat_0=38 +lon_0=-98 +units=m +a=6370997.0 +ellps=sphere "
CORNERS = np.array([29.86291091, -100.8555301, 33.35231856, -96.83814671])
SIZE = (384, 384)
KM = 1000.0


def test_an_event_of_sevir():
    """Pixels are 1 km wide, and the outer ones begin at the corners."""
    found = place.pixels(SEVIR, CORNERS, SIZE)
    assert found is not None
    latitude, longitude = found
    assert latitude.shape == longitude.shape == SIZE
    projection = place.EqualArea(38.0, -98.0, 6370997.0)
    x, y = projection.forward(latitude, longitude)
    np.testing.assert_allclose(np.diff(x, axis=1), KM, atol=0.01)
    np.testing.assert_allclose(np.diff(y, axis=0), KM, atol=0.01)
    left, bottom = projection.forward(*CORNERS[:2])
    np.testing.assert_allclose(
        [x[0, 0], y[0, 0]], [left + KM / 2, bottom + KM / 2], atol=1
    )


def test_distances_and_areas():
    """The projection keeps areas, and distances near its centre."""
    projection = place.EqualArea(38.0, -98.0, 6370997.0)
    degree = np.radians(1) * projection.radius
    x, y = projection.forward([38.01, 38.0], [-98.0, -97.99])
    np.testing.assert_allclose([x[0], y[0]], [0, 0.01 * degree], atol=0.1)
    np.testing.assert_allclose(x[1], 0.01 * degree * np.cos(np.radians(38)), rtol=1e-6)
    latitude, longitude = projection.inverse(np.array([0.0]), np.array([0.0]))
    np.testing.assert_allclose([*latitude, *longitude], [38, -98])


@pytest.mark.parametrize(
    ("projection", "corners"),
    [
        ("", CORNERS),
        ("+proj=stere +lat_0=90 +lon_0=0 +a=6378137 +b=6356752", CORNERS),
        ("+proj=laea +lat_0=38 +lon_0=-98 +ellps=WGS84", CORNERS),
        ("+proj=laea +lat_0=38 +lon_0=-98 +a=6378137 +b=6356752", CORNERS),
        ("+proj=laea +lat_0=38 +lon_0=-98 +a=6370997 +x_0=1000", CORNERS),
        (SEVIR, np.full(4, np.nan)),
    ],
)
def test_others_are_unknown(projection, corners):
    assert place.pixels(projection, corners, SIZE) is None
