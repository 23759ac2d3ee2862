"""What settings and statistics of a training mean for files of another form."""

from typing import Any

import numpy as np
import pytest

from earthformer_jax.data.cubes import beginnings, cube
from earthformer_jax.data.readers import times
from tests.data import cube_files
from tests.data.cubes.other_forms import (
    IN_LEN,
    at,
    days,
    find,
    finer,
    globe,
    holes,
    kelvin,
    steps,
    trained,
    units,
)


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("train") / "train.nc", days())


REGION: dict[str, Any] = dict(region=(9.0, 19.0, 335.0, 385.0), space_step=2)


@pytest.mark.parametrize("form", ["as in the training", "cut", "averaged", "finer"])
def test_region_and_space_step_of_the_training(tmp_path, form):
    """They apply to files like that of the training; others were cut before."""
    fine = finer(globe(8))
    trained_on = finer(globe())
    state = trained(tmp_path / "train.nc", trained_on, **REGION)
    assert state.layout.size == (4, 5)
    files = {
        "as in the training": fine,
        "cut": finer(at(globe(8))),
        "averaged": at(globe(8)),
        "finer": finer(fine, 2).assign_coords(
            lat=np.repeat(fine.lat, 2) + np.tile([-0.3125, 0.3125], 8),
            lon=(np.repeat(fine.lon, 2) + np.tile([-1.25, 1.25], 72)) % 360,
        ),
    }
    found = find(tmp_path / "x.nc", state, files[form], **REGION)
    expected = cube_files.stacked(at(globe(8)))[-IN_LEN:]
    np.testing.assert_allclose(kelvin(found), expected, atol=1e-4, rtol=0)
    assert bool(found.notes) == (form == "finer")


@pytest.mark.parametrize(
    ("first", "thinned"),
    [("2003-05-01T00", False), ("2003-05-01T05", False), ("2003-05-01T06", True)],
)
def test_time_step_of_the_training(tmp_path, first, thinned):
    """Frames are at the hours of the training, wherever the file begins."""
    hourly = steps(globe(300), "1h")
    state = trained(tmp_path / "train.nc", at(hourly), time_step=6)
    later = steps(at(globe(60)), "1h", first)
    if thinned:
        later = later.isel(time=slice(None, None, 6))
    found = find(tmp_path / "x.nc", state, later, time_step=6)
    assert found.reference is not None
    hours = found.reference.minutes // 60
    assert (hours % 6 == 0).all()
    wanted = later.sel(time=(hours * 3600).astype("datetime64[s]"))
    np.testing.assert_allclose(
        kelvin(found)[-1], cube_files.stacked(wanted)[0], atol=1e-4, rtol=0
    )


def test_months_of_the_training(tmp_path):
    """Every twelfth month is the same one in a file that begins with another."""
    state = trained(
        tmp_path / "train.nc", at(steps(globe(540), "M", "1900-01")), time_step=12
    )
    later = at(steps(globe(60), "M", "2001-05"))
    found = find(tmp_path / "x.nc", state, later, time_step=12)
    assert found.reference is not None
    assert times.text(found.reference.minutes[0]) == "2006-01-01"


def test_the_series_of_the_training_is_thinned_as_it_was(tmp_path):
    """Each piece begins with its first frame, also after a gap."""
    hourly = holes(at(steps(globe(400), "h")), 201, 202, 203)
    state = trained(tmp_path / "train.nc", hourly, time_step=6)
    path = cube_files.write(hourly, tmp_path / "again.nc")
    settings = cube.Settings(path=path, in_len=IN_LEN, out_len=3, time_step=6)
    data = cube.load(settings, state).data
    assert len(data.train) == state.examples["train"] > 0


def test_levels_of_the_training(tmp_path):
    """Channels are variables at levels, whatever the variable is called."""
    both = days()["T"].expand_dims(level=[500.0, 850.0], axis=1)
    data = (both + both.level / 100).to_dataset(name="T").assign(P=days()["P"])
    data["T"].attrs = days()["T"].attrs
    settings: dict[str, Any] = dict(variables=("T",), level=("850", "500"))
    state = trained(tmp_path / "train.nc", data, **settings)
    other = data.rename(T="ta").isel(level=slice(None, None, -1))
    found = find(tmp_path / "x.nc", state, other, **settings)
    assert [v.name for v in found.variables] == ["T_850", "T_500"]
    expected = data["T"].sel(level=[850, 500]).transpose("time", "lat", "lon", "level")
    np.testing.assert_allclose(kelvin(found), expected[-IN_LEN:], atol=1e-4, rtol=0)


def test_one_file_for_each_variable(tmp_path, state):
    folder = tmp_path / "files"
    folder.mkdir()
    cube_files.write(days()[["P"]].rename(P="p"), folder / "a.nc")
    cube_files.write(units(days(), T=(1, -273.15, "degC"))[["T"]], folder / "b.nc")
    found = find(folder / "*.nc", state)
    expected = cube_files.stacked(days())[-IN_LEN:]
    np.testing.assert_allclose(kelvin(found), expected, atol=1e-4, rtol=0)
    assert "'T' is converted from degC to K" in found.notes


def test_variables_on_a_grid_of_fewer(tmp_path, state):
    """What was trained on is found among more variables on another grid."""
    other = days().rename(lat="y", lon="x").drop_vars(["y", "x"]).isel(y=slice(2))
    more = {name: other["T"].rename(name) for name in ("a", "b", "c")}
    found = find(tmp_path / "x.nc", state, days().assign(more))
    expected = cube_files.stacked(days())[-IN_LEN:]
    np.testing.assert_allclose(kelvin(found), expected, atol=1e-4, rtol=0)


def test_anomalies_keep_their_zero(tmp_path):
    """An anomaly of 1 degC is one of 1 K."""
    data = days().rename(T="T_anomaly")
    state = trained(tmp_path / "train.nc", data)
    other = units(data, T_anomaly=(1, 0, "degC"))
    found = find(tmp_path / "x.nc", state, other)
    expected = cube_files.stacked(data, ("T_anomaly", "P"))[-IN_LEN:]
    np.testing.assert_allclose(kelvin(found), expected, atol=1e-4, rtol=0)


def test_values_far_from_the_training_are_said(tmp_path, state):
    """They are used if the unit is known: it may be hot."""
    found = find(tmp_path / "x.nc", state, units(days(), T=(1, 60, "K")))
    assert any("values of 'T' are far from those" in note for note in found.notes)


def test_units_are_asked_for_in_evaluation_too(tmp_path, state):
    later = steps(at(globe(30)), "D", "2002-01-01")
    for offset, unit, match in ((-273.15, "", "in K; give .* units"), (60, "K", "")):
        path = cube_files.write(units(later, T=(1, offset, unit)), tmp_path / "x.nc")
        settings = cube.Settings(path=path, in_len=IN_LEN, out_len=3)
        if match:
            with pytest.raises(ValueError, match=match):
                cube.load(settings, state)
        else:
            assert (
                "values of 'T' are far" in cube.load(settings, state).data.description
            )


@pytest.mark.parametrize("frames", [1, 2])
def test_a_single_frame(tmp_path, frames):
    """The time to the next is that of the training."""
    state = trained(tmp_path / "train.nc", days())
    last = days().isel(time=slice(-frames, None))
    cube_files.write(last, tmp_path / "x.nc")
    chosen = cube.Settings(path=str(tmp_path / "x.nc"), in_len=1, out_len=3)
    found = beginnings.find(chosen, state)
    assert found.following is not None and found.reference is not None
    step = found.following(0, 2).minutes - found.reference.minutes
    np.testing.assert_array_equal(step, [24 * 60, 48 * 60])


def test_evaluation_of_other_forms(tmp_path, state):
    """Scores are those of the values, whatever the file looks like."""
    later = steps(globe(30), "D", "2002-01-01")
    forms = at(later), units(later, T=(1, -273.15, "degC"))[["P", "T"]]
    tests = []
    for i, data in enumerate(forms):
        path = cube_files.write(data, tmp_path / f"{i}.nc")
        settings = cube.Settings(path=path, in_len=IN_LEN, out_len=3)
        tests.append(cube.load(settings, state).data)
    a, b = (data.test for data in tests)
    assert len(a) == len(b) == 24
    for name in ("inputs", "targets"):
        np.testing.assert_allclose(a[5][name], b[5][name], atol=1e-4)
    assert "'T' is converted" in tests[1].description


def test_share_of_filled_values(tmp_path):
    """Of the cells that were observed in the training."""
    land = days().where(days().lat > 11)
    state = trained(tmp_path / "train.nc", land)
    holes = land.copy(deep=True)
    holes["T"][-1, -1, :] = np.nan
    example = find(tmp_path / "x.nc", state, holes).windows[0]
    assert example["filled"] == pytest.approx(5 / (IN_LEN * 2 * 15))
    more = find(tmp_path / "y.nc", state, days()).windows[0]
    assert more["filled"] == 0 and (more["inputs"][:, 0] == 0).all()


class TestAnotherGrid:
    """`allow_other_grid`: statistics of the training, other cells."""

    def test_another_size(self, tmp_path, state):
        larger = globe().isel(lat=slice(3)).where(globe().lat > 11)
        found = find(tmp_path / "x.nc", state, larger, allow_other_grid=True)
        values = kelvin(found)
        assert values.shape == (IN_LEN, 3, 36, 2)
        expected = cube_files.stacked(larger)[-IN_LEN:]
        np.testing.assert_allclose(values[:, 1:], expected[:, 1:], atol=1e-4)
        assert np.isnan(values[:, 0]).all()
        assert found.latitude is not None and len(found.latitude) == 3

    def test_the_trained_cells_are_preferred(self, tmp_path, state):
        found = find(tmp_path / "x.nc", state, globe(), allow_other_grid=True)
        assert kelvin(found).shape == (IN_LEN, 4, 5, 2)

    def test_a_climatology_has_its_own_cells(self, tmp_path):
        data = steps(globe(540).isel(lon=slice(5)), "D")
        state = trained(tmp_path / "train.nc", data, anomalies=True)
        settings = dict(anomalies=True, allow_other_grid=True)
        with pytest.raises(ValueError, match="allow_other_grid=True: .* 4 x 5 cells"):
            find(tmp_path / "x.nc", state, data.isel(lat=slice(3)), **settings)

    def test_other_variables_are_refused(self, tmp_path, state):
        data = globe().isel(lat=slice(3))[["T"]]
        with pytest.raises(ValueError, match="there is no P"):
            find(tmp_path / "x.nc", state, data, allow_other_grid=True)


def test_anomalies(tmp_path):
    """Departures from the climatology of the training, and the full fields."""
    data = steps(globe(540).isel(lon=slice(5)), "D")
    state = trained(tmp_path / "train.nc", data, anomalies=True)
    found = find(tmp_path / "x.nc", state, data, anomalies=True)
    assert found.anomalies is not None and found.reference is not None
    inputs = found.windows[0]["inputs"]
    minutes = found.reference.minutes[0] + 24 * 60 * np.arange(1 - IN_LEN, 1)
    full = found.decode(inputs, minutes)
    np.testing.assert_allclose(
        full, cube_files.stacked(data)[-IN_LEN:], atol=1e-3, rtol=0
    )
    normalizer = cube.trained.unpack(state)[0]
    assert normalizer.climatology is not None
    climate = normalizer.climatology.at(minutes)
    np.testing.assert_allclose(found.anomalies(inputs), full - climate, atol=1e-3)
