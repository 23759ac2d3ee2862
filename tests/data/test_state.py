"""What a model keeps of its data: written, read back, and compared with other data."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

from earthformer_jax import data
from earthformer_jax.data import state as state_lib
from earthformer_jax.data.state import DataState, Layout
from earthformer_jax.settings import ConfigError
from tests.data import sst_files

STATE = DataState(
    name="custom",
    description="a series",
    layout=Layout(
        channels=("t", "p"),
        units=("K", ""),
        size=(2, 3),
        frame="1 day",
        latitude=np.array([0.0, 1.0]),
        longitude=np.array([5.0, 6.0, 7.0]),
        standard_names=("air_temperature", ""),
        flipped=True,
    ),
    input_shape=(4, 2, 3, 2),
    target_shape=(1, 2, 3, 1),
    examples={"train": 3, "validation": 1, "test": 2},
    frames={"train": (0, 7), "validation": (7, 9), "test": (9, 11)},
    minutes={"train": (0, 6), "validation": (7, 8), "test": (9, 10)},
    calendar="noleap",
    checksums={"train": np.array([2**64 - 1, 3], np.uint64)},
    fitted=xr.Dataset({"scale": ("channel", np.float32([1.5, np.nan]))}),
)


def test_it_is_read_as_written(tmp_path):
    STATE.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [state_lib.FILE]
    again = state_lib.read(tmp_path)
    for field in dataclasses.fields(DataState):
        want, got = getattr(STATE, field.name), getattr(again, field.name)
        if field.name == "fitted":
            xr.testing.assert_identical(got, want)
        elif field.name == "layout":
            assert not want.differences(got) and want.channels == got.channels
            assert want.standard_names == got.standard_names
            assert want.flipped == got.flipped
            np.testing.assert_array_equal(want.longitude, got.longitude)
        elif field.name == "checksums":
            np.testing.assert_array_equal(got["train"], want["train"])
        else:
            assert got == want, field.name


def test_a_file_of_other_tools_can_be_read(tmp_path):
    """It follows the CF conventions: dates and coordinates are decoded."""
    STATE.write(tmp_path)
    with xr.open_dataset(tmp_path / state_lib.FILE) as file:
        assert file.period.dtype.kind == "M"
        assert file.latitude.attrs["units"] == "degrees_north"


def test_a_folder_without_it(tmp_path):
    assert state_lib.read(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"no file of NetCDF", None])
def test_damaged(tmp_path, content):
    STATE.write(tmp_path)
    path = tmp_path / state_lib.FILE
    path.write_bytes(path.read_bytes()[:-500] if content is None else content)
    with pytest.raises(ConfigError, match=r"data.nc, which .* cannot be read"):
        state_lib.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (dict(channels=("t", "q")), "variables: t, p, now t, q"),
        (dict(units=("degC", "")), "units of 't': 'K', now 'degC'"),
        (dict(size=(3, 3)), "grid: 2 x 3 cells, now 3 x 3 cells"),
        (dict(frame="6 hours"), "time from frame to frame: 1 day, now 6 hours"),
        (dict(latitude=np.array([0.0, 2.0])), "latitudes: 0..1, now 0..2"),
    ],
)
def test_another_layout(change, line):
    other = dataclasses.replace(STATE.layout, **change)
    assert STATE.layout.differences(other) == [line]


def test_longitudes_of_another_turn():
    other = dataclasses.replace(STATE.layout, longitude=np.array([5.0, -354.0, 367.0]))
    assert STATE.layout.differences(other) == []


def test_what_is_unknown_is_not_compared():
    other = dataclasses.replace(
        STATE.layout, units=("", "mm"), frame="", latitude=None, longitude=None
    )
    assert STATE.layout.differences(other) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            dict(minutes=STATE.minutes | {"train": (0, 60 * 24)}),
            "train period: 1970-01-01..1970-01-01 00:06, now 1970-01-01..1970-01-02",
        ),
        (
            dict(examples=STATE.examples | {"train": 4}),
            "train examples: 3, now 4",
        ),
        (
            dict(checksums={"train": np.array([1, 3], np.uint64)}),
            "train values: 1 of 2 checksums differ",
        ),
        (
            dict(checksums={"train": np.array([3], np.uint64)}),
            "train frames: 2, now 1",
        ),
    ],
)
def test_other_data(change, line):
    assert STATE.differences(dataclasses.replace(STATE, **change)) == [line]


def test_test_data_may_grow():
    other = dataclasses.replace(STATE, minutes=STATE.minutes | {"test": (9, 20)})
    assert STATE.differences(other) == []
    assert len(STATE.differences(other, splits=("test",))) == 1


def test_checksums():
    """One for each array; any bit counts, but not which NaN it is."""
    x = np.float32([1, np.nan])
    other_nan = np.array([0x3F800000, 0x7FC00001], np.uint32).view(np.float32)
    a, b, c = state_lib.checksums([x, other_nan, np.nextafter(x, np.float32(2))])
    assert a == b != c


def test_data_without_statistics():
    """Their state is small, and generated values are not compared."""
    config = dict(name="moving_mnist", train=8, validation=2, test=2)
    state = data.load(config, seed=0).data.state()
    assert state.input_shape == state.target_shape == (10, 64, 64, 1)
    assert not state.checksums and not len(state.fitted)
    larger = dict(name="enso", in_len=2, out_len=3, twin_train=4)
    with pytest.raises(ValueError, match="do not match .* grid: 64 x 64 cells, now 24"):
        data.load(larger, 0, state)


def test_el_nino_of_an_earlier_version(tmp_path):
    """Its state has no statistics, which are fitted to the same months again."""
    whole = sst_files.dataset(12 * 16)
    config = dict(name="enso", in_len=2, out_len=3, simulated=False)
    config |= dict(train_until="2008-12", validate_until="2009-12")

    def load(ds, name, state=None):
        path = sst_files.write(ds, tmp_path / name)
        return data.load(config | {"path": path}, state=state).data

    first = load(whole.isel(time=slice(12 * 12)), "first.nc")
    sources = {"train": first.train, "validation": first.validation}
    assert first.state is not None
    now = first.state()
    state = dataclasses.replace(
        now,
        layout=dataclasses.replace(
            now.layout, channels=("SST anomaly",), units=("K",), frame="month"
        ),
        frames={},
        minutes={},
        calendar="",
        checksums={k: state_lib.example_checksums(x) for k, x in sources.items()},
        fitted=xr.Dataset(),
    )
    grown = load(whole, "grown.nc", state)
    assert len(grown.test) == len(first.test) + 48
    assert grown.normalization == first.normalization
    assert grown.state is not None and not state.differences(grown.state())
    with pytest.raises(ValueError, match=r"climatology and scale\): train values"):
        load(1.05 * whole, "other.nc", state)
