"""Data sets in memory, as files that the readers open."""

import pathlib

import numpy as np
import pytest
import xarray as xr

from earthformer_jax.data.forecasting import given
from earthformer_jax.data.readers import series
from earthformer_jax.data.readers.layout import Wanted
from tests.data import cube_files

FRAMES = 8


def opened(source, variables=()):
    """The series of a source, and its values."""
    with given.stored(source) as path:
        cube = series.open_cube(path, Wanted(variables))
        return cube, cube.frames.read(0, FRAMES)


def same(found, expected):
    """Whether two series hold the same values, dates, names, units and grid."""
    (cube, values), (other, others) = found, expected
    np.testing.assert_allclose(values, others, rtol=1e-6)
    np.testing.assert_array_equal(cube.minutes, other.minutes)
    assert (cube.names, cube.units) == (other.names, other.units)
    assert cube.times.calendar == other.times.calendar
    np.testing.assert_array_equal(cube.latitude, other.latitude)


@pytest.fixture
def packed(tmp_path):
    """A file of int16 with a missing value and a valid range of packed numbers."""
    data = cube_files.dataset(FRAMES)
    data["T"][3, 1, 1] = np.nan
    data["T"].attrs["valid_range"] = np.array([-20000, 3000], np.int16)  # up to 293 K
    how = dict(dtype="i2", scale_factor=0.001, add_offset=290.0, _FillValue=-32768)
    return cube_files.write(data, tmp_path / "x.nc", encoding={"T": how})


@pytest.mark.parametrize(
    "options", [{}, {"decode_cf": False}, {"decode_coords": "all"}], ids=str
)
def test_an_open_file(packed, options):
    """What xarray decodes, or does not, is the same as what the file holds."""
    expected = opened(packed)
    assert np.isnan(expected[1]).sum() > 10
    with xr.open_dataset(packed, **options) as data:
        same(opened(data), expected)


def test_an_array(packed):
    with xr.open_dataset(packed) as data:
        same(opened(data["T"]), opened(packed, ("T",)))
        assert opened(data["T"].rename(None))[0].names == ("value",)


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_calendars_of_models(tmp_path, calendar):
    data = cube_files.dataset(FRAMES)
    days = ("time", np.arange(FRAMES), {"units": "days since 2004-02-26"})
    days[2]["calendar"] = calendar
    path = cube_files.write(data.assign_coords(time=days), tmp_path / "x.nc")
    with xr.open_dataset(path) as decoded:
        assert decoded["time"].dtype == object  # cftime
        same(opened(decoded), opened(path))


def test_values_are_those_in_memory(packed):
    """Changed values are not packed again: int16 does not hold them."""
    with xr.open_dataset(packed) as data:
        changed = data.assign(T=data["T"] + 1000)
        changed["T"].attrs = {"units": "K", "origin": {"not": "text"}, "ok": True}
        changed["T"].encoding = data["T"].encoding
        _, values = opened(changed)
    np.testing.assert_allclose(values[0, ..., 0], data["T"][0] + 1000, rtol=1e-6)


def test_fields_are_written_in_pieces(packed, monkeypatch):
    """At most `PIECE_BYTES` of a field are read at a time."""
    monkeypatch.setattr(given, "PIECE_BYTES", 2 * 4 * 20 * 2)
    read = []
    plain = xr.Variable.values.fget
    assert plain is not None

    def values(self):
        read.append(self.shape)
        return plain(self)

    with xr.open_dataset(packed) as data:
        monkeypatch.setattr(xr.Variable, "values", property(values))
        with given.stored(data):
            pass
    fields = [shape for shape in read if len(shape) == 3]
    assert fields and max(shape[0] for shape in fields) < FRAMES


def test_paths_are_left_alone():
    for path in ("a/*.nc", pathlib.Path("a/b.nc")):
        with given.stored(path) as found:
            assert found == str(path)


def test_the_file_is_deleted():
    with given.stored(cube_files.dataset(FRAMES)) as path:
        assert pathlib.Path(path).exists()
    assert not pathlib.Path(path).parent.exists()


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match=r"expected a path.* got numpy\.ndarray"):
        with given.stored(np.zeros(3)):  # pyright: ignore[reportArgumentType]
            pass


@pytest.mark.parametrize("kind", ["name", "type"])
def test_what_netcdf_cannot_hold_is_refused(kind):
    data = cube_files.dataset(FRAMES)
    if kind == "name":
        data = data.rename(T="a/b")
    else:
        data["T"] = data["T"].astype(object).copy()
        data["T"][0, 0, 0] = {}
    with pytest.raises(ValueError, match="cannot be written as NetCDF"):
        with given.stored(data):
            pass
