"""The cells of a training in other grids."""

import dataclasses

import numpy as np
import pytest

from earthformer_jax.data.forecasting import grids
from earthformer_jax.data.readers.frames import block_mean
from earthformer_jax.data.state import Layout
from tests.data import cube_files


def part_of(values, latitude, longitude, layout):
    """The trained cells of fields, or what differs; and notes."""
    cube = dataclasses.replace(
        cube_files.cube(values), latitude=latitude, longitude=longitude
    )
    lines: list[str] = []
    notes: list[str] = []
    part = grids.find_part(cube, layout, lines, notes)
    frames = cube.frames if part is None else cube.frames.cut(part)
    return None if lines else frames.read(0, len(values)), lines, notes


def layout(latitude, longitude):
    size = np.shape(latitude)
    size = size if len(size) == 2 else (len(latitude), len(longitude))
    return Layout(
        channels=("T",),
        units=("",),
        size=size,
        latitude=np.asarray(latitude, np.float64),
        longitude=np.asarray(longitude, np.float64),
    )


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_any_region_of_any_globe(step):
    """Rolled, mirrored, counted from elsewhere, cut: blocks always match the cells."""
    rng = np.random.default_rng(step)
    for _ in range(50):
        wide = int(rng.choice([12, 36, 144]))
        high = int(rng.integers(3, 8))
        longitude = (np.arange(wide * step) + 0.5) * 360 / (wide * step)
        latitude = -10 + (np.arange(high * step) + 0.5) * 2.5 / step
        fine = rng.standard_normal((1, high * step, wide * step, 1)).astype(np.float32)
        coarse = block_mean(fine, step)
        columns = (rng.integers(wide) + np.arange(rng.integers(2, wide + 1))) % wide
        columns = columns[::-1] if rng.random() < 0.3 else columns
        south = int(rng.integers(0, high - 1))
        north = int(rng.integers(south + 2, high + 1))
        trained = layout(
            latitude.reshape(-1, step).mean(axis=1)[south:north],
            np.unwrap(longitude.reshape(-1, step).mean(axis=1)[columns], period=360),
        )
        order = (rng.integers(wide) + np.arange(wide * step)) % (wide * step)
        order = order[::-1] if rng.random() < 0.3 else order
        rows = slice(
            int(rng.integers(0, south * step + 1)),
            int(rng.integers(north * step, high * step + 1)),
        )
        found, lines, _ = part_of(
            fine[:, rows][:, :, order],
            latitude[rows],
            np.unwrap(longitude[order], period=360) + 360 * rng.integers(-1, 2),
            trained,
        )
        assert found is not None, lines
        expected = coarse[:, south:north][:, :, columns]
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("mirror", [1, -1])
def test_cells_of_a_finer_grid_at_the_same_places(mirror):
    """Every n-th, where blocks of cells have their middle elsewhere."""
    latitude, longitude = np.arange(7.0), np.arange(350.0, 363.0)[::mirror]
    values = np.arange(7.0 * 13).reshape(1, 7, 13, 1)
    trained = layout(np.arange(0.0, 7, 2), np.arange(352.0, 361, 2))
    found, _, notes = part_of(values, latitude, longitude, trained)
    expected = values[:, ::2][:, :, ::mirror][:, :, 2:11:2]
    np.testing.assert_array_equal(found, expected)
    assert notes[-1].startswith("every 2. row and column is used")


def test_a_part_of_a_curvilinear_grid():
    y, x = np.mgrid[0:6, 0:8]
    latitude, longitude = 50 + y + 0.1 * x, 359 + x - 0.2 * y
    values = np.arange(48.0).reshape(1, 6, 8, 1)
    trained = layout(latitude[2:5, 1:7], longitude[2:5, 1:7] - 360)
    for step in (1, -1):
        found, _, notes = part_of(
            values[:, ::step], latitude[::step], longitude[::step], trained
        )
        np.testing.assert_array_equal(found, values[:, 2:5, 1:7])
        assert "3 x 6 of the 6 x 8 cells are used" in notes
    _, lines, _ = part_of(values, latitude + 0.01, longitude, trained)
    assert lines and lines[0].startswith("grid: 3 x 6 cells")


@pytest.mark.parametrize(
    ("latitude", "longitude"),
    [
        ([0.0, 1, 2], [10.0, 11, 12]),  # too small
        ([0.0, 1, 2, 3], [10.5, 11.5, 12.5, 13.5]),  # half a cell off
        ([0.0, 1, 2.5, 3], [10.0, 11, 12, 13]),  # uneven
        (np.arange(0, 4, 0.5), [10.0, 11, 12, 13]),  # finer in one direction
        ([0.0, 2, 4], [10.0, 12, 14]),  # coarser
        (np.arange(-0.3, 4, 0.4), np.arange(9.7, 14, 0.4)),  # 2.5 times finer
    ],
    ids=str,
)
def test_other_grids(latitude, longitude):
    trained = layout(np.arange(4.0), np.arange(10.0, 14))
    values = np.zeros((1, len(latitude), len(longitude), 1))
    found, lines, _ = part_of(
        values, np.asarray(latitude), np.asarray(longitude), trained
    )
    assert found is None
    assert lines[0].startswith("grid: 4 x 4 cells 0N..3N 10E..13E, now ")


def test_cells_without_coordinates():
    """They are taken for the trained ones if there are as many, and that is said."""
    trained = layout(np.arange(4.0), np.arange(10.0, 14))
    found, _, notes = part_of(np.ones((1, 4, 4, 1)), None, None, trained)
    assert found is not None and "taken to be those of the training" in notes[0]
    assert part_of(np.ones((1, 4, 5, 1)), None, None, trained)[0] is None
