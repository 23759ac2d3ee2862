"""ICAR-ENSO files: unfolding, windows and splits as in the reference implementation."""

import functools
import json
import pathlib

import numpy as np
import pytest
import xarray as xr

from earthformer_jax import data as data_sets
from earthformer_jax.data.enso import icar
from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.frames import ArrayFrames
from earthformer_jax.data.splits import NO_DATES, SPLITS, Dates, starts_between
from earthformer_jax.data.task import ForecastNino
from earthformer_jax.data.windows import Windows
from tests import golden_files
from tests.data import sst_files

LATITUDE = np.array([-5.0, 0.0, 5.0])
LONGITUDE = np.array([90.0, 100.0, 190.0, 215.0, 240.0, 335.0])
YEARS = 12


@pytest.fixture(scope="module")
def golden():
    return golden_files.load("x_metrics")


class TestReference:
    """The helpers of the reference implementation, on its own inputs."""

    @pytest.mark.parametrize("case", range(2))
    def test_windows(self, golden, case):
        config = json.loads(str(golden[f"prepare_inputs_targets/{case}/config"]))
        in_len, out_len = config["input_length"], config["pred_length"]
        months, span = config["len_time"], in_len + out_len
        source = Windows(
            ArrayFrames(np.arange(months).reshape(-1, 1, 1, 1)),
            None,
            starts_between(0, months, span, config["samples_gap"]),
            in_len=in_len,
            out_len=out_len,
        )
        index = [
            np.concatenate([source[i]["inputs"], source[i]["targets"]]).ravel()
            for i in range(len(source))
        ]
        expected = golden[f"prepare_inputs_targets/{case}/output/ind"]
        np.testing.assert_array_equal(index, expected)

    @pytest.mark.parametrize("case", range(3))
    def test_unfold(self, golden, case):
        config = json.loads(str(golden[f"fold/{case}/config"]))
        series = icar.unfold(golden[f"fold/{case}/input/data"], config["stride"])
        np.testing.assert_array_equal(series, golden[f"fold/{case}/output/out"])

    def test_rows_of_several_models(self, golden):
        rows = golden["data_transform/input/data"]
        years = json.loads(str(golden["data_transform/config"]))["num_years_per_model"]
        models = rows.reshape(-1, years, rows.shape[1])
        series = np.stack([icar.unfold(model) for model in models], axis=-1)
        np.testing.assert_array_equal(series, golden["data_transform/output/out"])

    def test_windows_of_one_model_follow_those_of_the_last(self, golden):
        """The reference stacks models on the last axis, then joins them like this."""
        data = golden["cat_over_last_dim/input/data"]
        months, models = data.reshape(-1, data.shape[-1]).shape
        joined = data.reshape(months, models).T.reshape(-1, 1, 1, 1)
        starts = (months * np.arange(models)[:, None] + [0, 3]).ravel()
        source = Windows(ArrayFrames(joined), None, starts, in_len=2, out_len=1)
        windows = [
            np.concatenate([source[i]["inputs"], source[i]["targets"]]).ravel()
            for i in range(len(source))
        ]
        np.testing.assert_array_equal(windows, golden["cat_over_last_dim/output/out"])

    def test_scaling(self, golden):
        config = json.loads(str(golden["scale_sst/config"]))
        assert config == {"SST_MIN": icar.SST_MIN, "SST_MAX": icar.SST_MAX}


class TestSplits:
    lengths = [12 * (years - 1) + 36 for models, years in icar.CMIP]
    lengths = [lengths[0]] * 15 + [lengths[1]] * 17

    @pytest.mark.parametrize(
        ("split", "counts"),
        [("paper", (5205, 334, 1667)), ("released", (52350, 1679, 1679))],
    )
    def test_published_counts(self, split, counts):
        starts = icar.model_starts(self.lengths, split, 12, 14)
        assert tuple(sum(map(len, s)) for s in starts.values()) == counts

    def test_models_are_whole(self):
        starts = icar.model_starts(self.lengths, "released", 12, 14)
        used = {
            name: [model for model, positions in enumerate(s) if len(positions)]
            for name, s in starts.items()
        }
        assert used == {"train": [*range(30)], "validation": [30], "test": [31]}

    def test_paper_windows_leave_26_months(self):
        starts = icar.model_starts(self.lengths, "paper", 12, 14)
        assert starts["test"][31][-1] + 12 + 26 == self.lengths[31]

    def test_impossible(self):
        with pytest.raises(ValueError, match="split='x' is unknown"):
            icar.model_starts(self.lengths, "x", 12, 14)
        with pytest.raises(ValueError, match="need 1712 months; the shortest .* 1704"):
            icar.model_starts(self.lengths, "paper", 12, 1700)


def small_file(folder, years=YEARS, name="SODA", change=None):
    """An ICAR-ENSO file of one model on 3 x 6 cells; returns its series."""
    series = sst_files.icar_series(12 * (years - 1) + 36, (3, 6), seed=1)
    rows = sst_files.icar_rows(series)
    nino = sst_files.icar_rows(sst_files.icar_labels(series))
    if change is not None:
        change(rows, nino)
    sst_files.write_icar(
        folder, rows, nino, latitude=LATITUDE, longitude=LONGITUDE, name=name
    )
    return series


def load(folder, **settings):
    train = icar.find(pathlib.Path(folder))
    labels = icar.find_labels(train, settings.pop("label_path", ""))
    months = icar.read(train, labels, settings.pop("variable", ""))
    return icar.divided(months, settings.pop("dates", NO_DATES), **settings)


class TestOneSeries:
    def test_series_and_labels(self, tmp_path):
        series = small_file(tmp_path)
        data = load(tmp_path, out_len=5)
        np.testing.assert_array_equal(
            data.cube.frames.values[..., 0], series[:, :, 1:5]
        )
        labels = sst_files.icar_labels(series).astype(np.float32)
        np.testing.assert_array_equal(data.three_month_index, labels)
        np.testing.assert_array_equal(data.grid.longitude, LONGITUDE[1:5])
        assert data.cube.period(0, 12) == "0001-01..0001-12"

    def test_split_by_date(self, tmp_path):
        small_file(tmp_path)
        dates = Dates(train_until="0008-12", validate_until="0010-12")
        data = load(tmp_path, out_len=5, dates=dates)
        assert len(data.training[0]) == 96
        assert [len(data.starts[split]) for split in SPLITS] == [
            96 - 16,
            24 - 4,
            48 - 4,
        ]

    def test_index_weights_are_equal(self, tmp_path):
        small_file(tmp_path)
        weights = load(tmp_path, out_len=5).nino_weights
        np.testing.assert_allclose(weights, [[0, 1 / 9, 1 / 9, 1 / 9]] * 3)

    def test_land(self, tmp_path):
        def flood(rows, nino):
            rows[:, :, 1, 2] = 0

        small_file(tmp_path, change=flood)
        ocean = load(tmp_path, out_len=5).grid.ocean
        assert not ocean[1, 1]
        assert ocean.sum() == 11

    def test_label_file_may_be_named(self, tmp_path):
        small_file(tmp_path)
        (tmp_path / "SODA_label.nc").rename(tmp_path / "x.nc")
        assert load(tmp_path, label_path=str(tmp_path / "x.nc"), out_len=5)
        with pytest.raises(FileNotFoundError, match="label file next to the training"):
            load(tmp_path)


@pytest.fixture(scope="module")
def cmip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cmip")
    rows, nino = [], []
    for model, years in enumerate([151] * 15 + [140] * 17):
        months = np.arange(12 * (years - 1) + 36, dtype=np.float32) / 1000
        series = np.broadcast_to(model + months[:, None, None], (len(months), 3, 6))
        rows.append(sst_files.icar_rows(series))
        nino.append(sst_files.icar_rows(model + months))
    return sst_files.write_icar(
        folder,
        np.concatenate(rows),
        np.concatenate(nino),
        latitude=LATITUDE,
        longitude=LONGITUDE,
        name="CMIP",
    )


class TestCmip:
    """A file of 4645 rows is the CMIP file, whatever its grid."""

    @pytest.mark.parametrize(
        ("split", "counts"),
        [("paper", (5205, 334, 1667)), ("released", (52350, 1679, 1679))],
    )
    def test_windows(self, cmip_folder, split, counts):
        data = load(cmip_folder, split=split)
        lengths = np.diff(data.cube.segments, axis=1).ravel().tolist()
        assert lengths == [1836] * 15 + [1704] * 17
        sources = {
            name: Windows(
                data.cube.frames,
                data.cube.minutes,
                starts,
                in_len=12,
                out_len=14,
                beside={"index": data.three_month_index},
            )
            for name, starts in data.starts.items()
        }
        assert tuple(map(len, sources.values())) == counts
        assert f"{split} windows" in data.description
        for name, model in (("train", 0), ("validation", 30), ("test", 31)):
            example = sources[name][1]
            stride = icar.PAPER_STRIDES[name] if split == "paper" else 1
            first = stride + 12
            np.testing.assert_allclose(
                example["targets"][:, 0, 0, 0],
                model + (first + np.arange(14)) / 1000,
                rtol=1e-6,
            )
            np.testing.assert_allclose(
                example["index"],
                model + (first + np.arange(14)) / 1000,
                rtol=1e-6,
            )
            assert times.month_of(example["time"][12]) % 12 == first % 12

    @pytest.mark.parametrize(("copied", "first"), [(31, 0), (30, 10)])
    def test_models_that_come_twice(self, copied, first):
        """The model of test is one of training, or the end of that of validation is."""
        rng = np.random.default_rng(0)
        fields = rng.standard_normal((32, 20, 3, 6)).astype(np.float32)
        fields[copied, first:] = fields[5, first:]
        months = icar.Months(
            label="models",
            fields=list(fields),
            three_month_index=list(np.zeros((32, 20), np.float32)),
            first_month=0,
            latitude=LATITUDE,
            longitude=LONGITUDE,
            by_model=True,
        )
        lengths = dict(in_len=4, out_len=3)
        make = functools.partial(icar.divided, months, split="released", **lengths)
        if not first:
            with pytest.raises(ValueError, match="the targets of all 14 test windows"):
                make()
            return
        data = make()
        assert [len(data.starts[split]) for split in SPLITS] == [30 * 14, 4, 14]
        assert "10 windows left out whose targets are also in" in data.description

    def test_protocol(self, cmip_folder):
        config = dict(name="enso", path=cmip_folder, protocol="enso-icar-released")
        dataset = data_sets.load(config)
        assert isinstance(dataset.task, ForecastNino)
        assert dataset.task.protocol["protocol"] == "enso-icar-released"
        assert len(dataset.data.train) == 52350
        for changes, message in (
            (
                dict(protocol="enso-kaplan-1985-2014"),
                "is for months with dates, .* is of climate models",
            ),
            (dict(folds=3), "by climate model .*; `folds` cannot be used with it"),
        ):
            with pytest.raises(ValueError, match=message):
                data_sets.load(config | dict(protocol="") | changes)

    def test_cmip_comes_before_soda(self, cmip_folder, tmp_path):
        small_file(tmp_path)
        assert icar.find(tmp_path).name == "SODA_train.nc"
        assert icar.find(pathlib.Path(cmip_folder)).name == "CMIP_train.nc"

    def test_dates_cannot_split_models(self, cmip_folder):
        with pytest.raises(ValueError, match="`train_until` cannot be used"):
            load(cmip_folder, dates=Dates(train_until="0100-12"))


class TestRefused:
    def refused(self, folder, message, change=None):
        small_file(folder, change=change)
        with pytest.raises(ValueError, match=message):
            load(folder, out_len=5)

    def test_rows_that_are_not_continuous(self, tmp_path):
        def shuffle(rows, nino):
            rows[5] = rows[8]

        self.refused(tmp_path, "row of year 5 .months 13-36. and the next row", shuffle)

    def test_missing_values(self, tmp_path):
        def lose(rows, nino):
            rows[3, 7, 1, 1] = np.nan

        self.refused(tmp_path, "missing values .NaN. in 1 of 12 rows, .* year 4", lose)

    def test_missing_labels(self, tmp_path):
        def lose(rows, nino):
            nino[2, 2] = np.nan

        self.refused(tmp_path, "SODA_label.nc has missing labels", lose)

    def test_labels_of_another_file(self, tmp_path):
        small_file(tmp_path)
        other = tmp_path / "other"
        other.mkdir()
        small_file(other, years=7)
        with pytest.raises(ValueError, match=r"labels for \(7, 36\) .* for \(12, 36\)"):
            load(tmp_path, label_path=str(other / "SODA_label.nc"))

    def test_other_rows(self, tmp_path):
        small_file(tmp_path)
        path = tmp_path / "SODA_train.nc"
        with xr.open_dataset(path) as ds:
            short = ds.isel(month=slice(0, 24)).load()
        short.to_netcdf(path)
        with pytest.raises(ValueError, match="rows have 24 months; expected 36"):
            load(tmp_path)

    def test_descending_grid(self, tmp_path):
        small_file(tmp_path)
        path = tmp_path / "SODA_train.nc"
        with xr.open_dataset(path) as ds:
            flipped = ds.isel(lat=slice(None, None, -1)).load()
        flipped.to_netcdf(path)
        with pytest.raises(ValueError, match="lat must ascend; it runs from 5 to -5"):
            load(tmp_path)


def test_real_layout():
    """The ERSSTv5 file in this layout, against the labels made from it."""
    train = golden_files.shared_file("data", "enso", "ersstv5_icar_layout_train.nc")
    data = load(train)
    fields = data.cube.frames.values[..., 0]
    assert fields.shape == (120, 24, 48)
    inside = np.zeros((24, 48))
    inside[10:13, 19:30] = 1 / 33
    np.testing.assert_allclose(data.nino_weights, inside)
    monthly = np.einsum("mhw,hw->m", fields, data.nino_weights)
    index = (monthly[:-2] + monthly[1:-1] + monthly[2:]) / 3
    np.testing.assert_allclose(index, data.three_month_index[:-2], atol=1e-5)
    assert data.grid.ocean.mean() == pytest.approx(0.81, abs=0.01)
