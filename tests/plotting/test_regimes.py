"""Figures of regimes: what is drawn where."""

import matplotlib as mpl
import numpy as np
import pytest

from earthformer_jax import plotting
from earthformer_jax.plotting import regimes

DATES = np.arange("2003-06-01", "2005-03-01", dtype="datetime64[D]")


def test_calendar():
    labels = (DATES.astype("datetime64[M]").astype(int) % 3).astype(int)
    top, bottom = plotting.regime_calendar(DATES, labels).axes
    grid = top.images[0].get_array()
    assert grid.shape == (3, 366)
    assert grid.mask[0, :152].all() and not grid.mask[0, 152:].any()  # from 1 June
    assert grid.mask[2, 60:].all()
    assert grid.mask[[0, 2], 59].all() and not grid.mask[1, 59]  # 29 February 2004
    assert grid[0, 152] == labels[0]
    shares = np.array([bar.get_height() for bar in bottom.patches]).reshape(3, 12)
    np.testing.assert_allclose(shares.sum(axis=0), 1)


def test_hourly_dates_and_many_regimes():
    dates = np.arange("2003-01-01", "2003-02-01", dtype="datetime64[h]")
    labels = np.arange(len(dates)) % 13
    top, _ = plotting.regime_calendar(dates, labels).axes
    np.testing.assert_array_equal(top.images[0].get_array()[0, :3], labels[[0, 24, 48]])
    assert len({mpl.colors.to_hex(c) for c in regimes.colours(13)}) == 13


@pytest.mark.parametrize("day", [None, np.arange(50)])
def test_projection(day):
    points = np.random.default_rng(0).normal(size=(50, 2))
    figure = plotting.projection(points, np.arange(50) % 4, day)
    assert len(figure.axes) == (1 if day is None else 3)  # two panels, a colour bar
    drawn = figure.axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(np.sort(drawn[:, 0]), np.sort(points[:, 0]))


@pytest.mark.parametrize("diverging", [False, True])
def test_field_table(diverging):
    fields = [np.full((3, 4), float(i)) for i in range(5)]
    fields[2][0] = np.nan
    figure = plotting.field_table(
        {"a": fields, "b": [10 * f for f in fields]},
        columns=list("vwxyz"),
        title="Fields",
        diverging=diverging,
        south_first=True,
        coordinates={"latitude": np.arange(3.0), "longitude": np.arange(4.0)},
    )
    panels = figure.axes[:10]
    limits = [panel.images[0].norm.vmax for panel in panels]
    if diverging:
        assert limits[0] < limits[5] and panels[0].images[0].norm.vmin == -limits[0]
    else:
        assert len(set(limits)) == 1
    assert panels[2].images[0].get_array().mask[0].all()
    assert panels[0].get_title() == "v" and panels[5].get_ylabel() == "b"
