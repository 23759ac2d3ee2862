"""Forecasts that begin at the same time, at different places."""

import dataclasses

import netCDF4
import numpy as np
import pytest
import xarray as xr

from earthformer_jax.data.forecasting.beginnings import Beginnings, Variable
from earthformer_jax.data.readers.times import Times
from earthformer_jax.forecast import writing
from earthformer_jax.forecast.chunks import Chunk
from earthformer_jax.forecast.outline import Outline

EVENTS = np.array(["S1", "Größe", "S3"])


def times(minutes):
    minutes = np.asarray(minutes, np.int64)
    return Times(60.0 * minutes, minutes)


def forecasts(minutes, events=EVENTS, dated=True):
    """An outline, and all forecasts in a chunk: number of the window plus lead."""
    count = len(minutes)
    last = np.full(count, 7)
    found = Beginnings(
        label="files",
        windows=[],
        last=last,
        reference=times(minutes) if dated else None,
        following=(lambda i, k: times(minutes[i] + 5 * np.arange(1, k + 1)))
        if dated
        else None,
        variables=(Variable("vil", "1"),),
        decode=lambda values, moments: values,
        coordinates={"event": events[:count]},
    )
    values = np.add.outer(np.arange(count), np.arange(2.0))[..., None, None, None]
    values = np.broadcast_to(values, (count, 2, 3, 3, 1)).astype(np.float32)
    chunk = Chunk(0, 0, values, np.zeros(count, np.float32))
    return Outline(found, 2), [chunk]


@pytest.mark.parametrize("suffix", [".nc", ".zarr", ""])
@pytest.mark.parametrize("dated", [True, False])
def test_events_tell_them_apart(tmp_path, suffix, dated):
    outline, chunks = forecasts([600, 600, 605], dated=dated)
    if suffix:
        path = tmp_path / f"f{suffix}"
        writing.write(path, outline, chunks)
        opened = xr.open_dataset(path, decode_timedelta=False)
    else:
        opened = writing.to_dataset(outline, chunks)
    with opened as file:
        assert file["vil"].dims[:1] == ("start",)
        assert [str(x) for x in file["event"].values] == EVENTS.tolist()
        assert "event" in file["vil"].coords
        if dated:
            assert file["forecast_reference_time"].dims == ("start",)
            assert file["valid_time"].dims == ("start", "lead_time")
        np.testing.assert_array_equal(file["vil"][:, 0, 0, 0], [0, 1, 2])


def test_texts_are_characters(tmp_path):
    """CF has them so, and many programs read nothing else."""
    outline, chunks = forecasts([600, 605, 610])
    writing.write(tmp_path / "f.nc", outline, chunks)
    with netCDF4.Dataset(tmp_path / "f.nc") as file:
        assert file["event"].dtype == "S1"
        assert file["vil"].dimensions[0] == "forecast_reference_time"


def test_a_single_one(tmp_path):
    outline, chunks = forecasts([600])
    writing.write(tmp_path / "f.nc", outline, chunks)
    with xr.open_dataset(tmp_path / "f.nc", decode_timedelta=False) as file:
        assert str(file["event"].astype(str).values) == "S1"
        assert file["vil"].dims[0] == "time"
        assert "y" not in file.coords


def test_rows_that_begin_in_the_south():
    """They are numbered, so that programs draw the north above."""
    outline, chunks = forecasts([600])
    found = dataclasses.replace(outline.beginnings, south_first=True)
    file = writing.to_dataset(dataclasses.replace(outline, beginnings=found), chunks)
    assert file["y"].values.tolist() == [0, 1, 2]
    assert file["y"].attrs["long_name"] == "pixel, from the south"
