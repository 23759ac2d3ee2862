"""The data set made from any series: units, weights, settings, messages."""

import pickle

import h5py
import numpy as np
import pytest
from ml_collections import ConfigDict

from earthformer_jax import data
from earthformer_jax.data import pipeline
from earthformer_jax.data.readers import series
from earthformer_jax.data.readers.frames import FileFrames
from earthformer_jax.data.task import EmbedSeries
from tests.data import cube_files

SHORT = dict(in_len=4, out_len=2)


def load(name="custom", seed=0, **settings):
    return data.load({"name": name} | SHORT | settings, seed)


@pytest.fixture
def ds():
    return cube_files.dataset(100)


@pytest.fixture
def path(ds, tmp_path):
    return cube_files.write(ds, tmp_path / "cube.nc")


@pytest.fixture(params=["memory", "files"])
def dataset(request, path, monkeypatch):
    if request.param == "files":
        monkeypatch.setattr(series.in_memory, "__defaults__", (0,))
    return load(path=path)


class TestDataset:
    def test_examples(self, dataset):
        for source in (dataset.data.train, dataset.data.validation, dataset.data.test):
            example = source[len(source) - 1]
            assert example["inputs"].shape == (4, 4, 5, 2)
            assert example["targets"].shape == (2, 4, 5, 2)
            assert example["time"].dtype == np.int32
            for name in ("inputs", "targets"):
                assert example[name].dtype == np.float32
                assert np.isfinite(example[name]).all()

    def test_units_and_back(self, dataset, ds):
        """Shown values are those of the file."""
        example = dataset.data.test[3]
        frames = example["time"].astype("datetime64[m]").astype("datetime64[ns]")
        for c, channel in enumerate(dataset.data.display.channels):
            want = ds[channel.name].sel(time=frames)
            shown = channel.shown(example["inputs"][..., c])
            np.testing.assert_allclose(shown, want[:4], atol=1e-4)
            shown = channel.shown(example["targets"][..., c])
            np.testing.assert_allclose(shown, want[4:], atol=1e-4)
            assert channel.units == ds[channel.name].units

    def test_area_weights(self, dataset):
        weights = dataset.data.loss_weights
        assert weights.shape == (1, 4, 5, 2) and weights.dtype == np.float32
        assert weights.mean() == pytest.approx(1)
        cosine = np.cos(np.deg2rad(dataset.data.coordinates["latitude"]))
        np.testing.assert_allclose(
            weights[0, :, 2, 1] / weights[0, 0, 2, 1], cosine / cosine[0], rtol=1e-6
        )

    def test_metric_of_a_perfect_forecast(self, dataset):
        metric, state = dataset.task.metric, dataset.task.metric.init()
        for batch in pipeline.evaluation_batches(dataset.data.test, 4):
            state = metric.update(state, batch["targets"], batch)
        scores = metric.compute(state)
        assert scores["mse"] == scores["rmse_T"] == scores["rmse_P"] == 0

    def test_rmse_is_in_the_units_of_the_file(self, dataset, ds):
        metric, state = dataset.task.metric, dataset.task.metric.init()
        channel = dataset.data.display.channels[0]
        for batch in pipeline.evaluation_batches(dataset.data.test, 4):
            wrong = batch["targets"] + np.float32(2.5 / channel.scale)
            state = metric.update(state, wrong, batch)
        assert metric.compute(state)["rmse_T"] == pytest.approx(2.5, rel=1e-4)

    def test_display(self, dataset):
        assert dataset.data.display.frame == "1 day"
        assert dataset.data.display.south_first
        assert [c.colormap for c in dataset.data.display.channels] == ["viridis"] * 2
        assert dataset.task.mse_units == "(standard deviations)^2"

    def test_description(self, dataset):
        assert "\n" not in dataset.data.description
        for text in ("cube.nc: T, P on 4 x 5 cells", "every 1 day", "4 -> 2 frames"):
            assert text in dataset.data.description
        for source in (dataset.data.train, dataset.data.validation, dataset.data.test):
            assert f"({len(source)} windows)" in dataset.data.description

    def test_sources_can_be_pickled(self, dataset):
        again = pickle.loads(pickle.dumps(dataset.data.train))
        for name, values in dataset.data.train[5].items():
            np.testing.assert_array_equal(again[5][name], values)

    def test_workers_read_the_same(self, dataset):
        batches = [
            pipeline.train_batches(dataset.data, batch_size=4, seed=1, num_threads=n)
            for n in (0, 4)
        ]
        for _ in range(6):
            a, b = (next(x) for x in batches)
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])
        for x in batches:
            x.close()


@pytest.mark.slow
def test_workers_in_other_processes(path, monkeypatch):
    """Files are opened anew in each."""
    monkeypatch.setattr(series.in_memory, "__defaults__", (0,))
    dataset = load(path=path)
    alone = pipeline.train_batches(dataset.data, batch_size=4, seed=1, num_threads=0)
    two = pipeline.train_batches(dataset.data, batch_size=4, seed=1, num_workers=2)
    for _ in range(4):
        np.testing.assert_array_equal(next(alone)["inputs"], next(two)["inputs"])
    two.close()


class TestFormats:
    """The same numbers in another container are the same data set."""

    def check(self, dataset, ds, path):
        want = load(path=path)
        for i in (0, len(want.data.test) - 1):
            for name in ("inputs", "targets"):
                np.testing.assert_allclose(
                    dataset.data.test[i][name], want.data.test[i][name], atol=1e-6
                )

    def test_zarr(self, ds, path, tmp_path):
        store = cube_files.write(ds, tmp_path / "cube.zarr")
        self.check(load(path=store, variables="T,P"), ds, path)

    def test_many_files(self, ds, path, tmp_path):
        for i in range(4):
            part = ds.isel(time=slice(25 * i, 25 * i + 25))
            cube_files.write(part, tmp_path / f"part_{i}.nc")
        self.check(load(path=f"{tmp_path}/part_*.nc"), ds, path)

    def test_hdf5(self, ds, path, tmp_path):
        with h5py.File(tmp_path / "cube.h5", "w") as file:
            for name in ("T", "P"):
                file[name] = ds[name].values.transpose(1, 2, 0)
        dataset = load(path=f"{tmp_path}/cube.h5", axes="hwt", variables=("T", "P"))
        self.check(dataset, ds, path)
        assert not dataset.data.coordinates and not dataset.data.display.south_first

    def test_npy(self, ds, path, tmp_path):
        np.save(tmp_path / "cube.npy", cube_files.stacked(ds))
        dataset = load(path=f"{tmp_path}/cube.npy", variables=("T", "P"))
        self.check(dataset, ds, path)
        assert dataset.data.display.frame == ""
        assert "time" not in dataset.data.train[0]
        np.testing.assert_array_equal(dataset.data.loss_weights, 1)


class TestMissing:
    def test_gaps_in_values(self, ds, tmp_path):
        ds["T"].values[::7, 1, 2] = np.nan
        ds["P"].values[:, 0, 0] = np.nan
        dataset = load(path=cube_files.write(ds, tmp_path / "c.nc"))
        assert dataset.data.loss_weights[0, 0, 0].tolist() == [
            pytest.approx(1, abs=0.1),
            0,
        ]
        weights = dataset.data.loss_weights
        assert weights[weights > 0].mean() == pytest.approx(1)
        unknown = ~np.stack([dataset.data.train[i]["observed"] for i in range(60)])
        assert unknown[..., 0, 0, 1].all() and unknown[..., 1, 2, 0].any()
        assert unknown[..., 1:, :, 1].sum() == 0
        assert (
            "0.38 % of the values are missing and left out" in dataset.data.description
        )
        assert (
            "2.5 % of the cells are never observed, weight 0"
            in dataset.data.description
        )

    def test_nothing_missing(self, path):
        assert "observed" not in load(path=path).data.train[0]

    def test_land_needs_no_mask(self, ds, tmp_path):
        ds["T"].values[:, 0, 0] = np.nan
        path = cube_files.write(ds, tmp_path / "c.nc")
        assert "observed" not in load(path=path).data.train[0]
        assert "observed" in load(path=path, flip=True).data.train[0]

    def test_gap_in_time(self, ds, tmp_path):
        path = cube_files.write(ds.isel(time=np.r_[0:30, 33:100]), tmp_path / "c.nc")
        dataset = load(path=path)
        for source in (dataset.data.train, dataset.data.validation, dataset.data.test):
            for i in range(len(source)):
                assert np.all(np.diff(source[i]["time"]) == 1440)
        assert "1 gap in steps of 1 day (after 2001-01-30)" in dataset.data.description


class TestSettings:
    def test_words_and_numbers_in_every_form(self, path):
        """As on the command line, as in Python, as read back from config.json."""
        region = (9.0, 16.0, 29.0, 41.0)
        forms = [
            dict(variables="T,P", targets="P", region="9,16,29,41", missing="255"),
            dict(variables=("T,P",), targets=("P",), region=region, missing=(255,)),
            dict(variables=["T", "P"], targets=["P"], region=[*region], missing=255),
        ]
        sets = [load(path=path, **form) for form in forms]
        for dataset in sets:
            example = dataset.data.train[0]
            assert example["inputs"].shape == (4, 3, 5, 2)
            assert example["targets"].shape == (2, 3, 5, 1)
            np.testing.assert_array_equal(
                example["inputs"], sets[0].data.train[0]["inputs"]
            )

    def test_config_dict(self, path):
        config = ConfigDict(dict(name="custom", path=path, **SHORT)).lock()
        assert len(data.load(config, 0).data.train) == 65

    def test_targets_come_first(self, path):
        plain, chosen = load(path=path), load(path=path, targets="P")
        a, b = plain.data.train[3], chosen.data.train[3]
        np.testing.assert_array_equal(b["inputs"], a["inputs"][..., ::-1])
        np.testing.assert_array_equal(b["targets"], a["targets"][..., 1:])
        assert [c.name for c in chosen.data.display.channels] == ["P"]
        assert chosen.task.metric.names == ("P",)
        assert chosen.data.loss_weights.shape[-1] == 1

    def test_calendar(self, path):
        assert load(path=path, calendar=True).data.train[0]["inputs"].shape[-1] == 4

    def test_flip(self, path):
        assert load(path=path).data.augment is None
        augment = load(path=path, flip=True).data.augment
        assert augment.flip_height and augment.flip_width

    def test_equal_weights(self, path):
        np.testing.assert_array_equal(
            load(path=path, area_weights=False).data.loss_weights, 1
        )

    def test_anomalies(self, tmp_path):
        ds = cube_files.dataset(900)
        path = cube_files.write(ds, tmp_path / "long.nc")
        dataset = load(path=path, anomalies=True)
        channel = dataset.data.display.channels[0]
        assert (channel.name, channel.offset) == ("T anomaly", 0)
        assert channel.colormap == "RdBu_r"
        assert dataset.task.metric.names == ("T", "P")
        assert "anomalies (3 harmonics of the year)" in dataset.data.description

    def test_large_cubes_are_read_when_needed(self, path, monkeypatch):
        monkeypatch.setattr(series.in_memory, "__defaults__", (10,))
        dataset = load(path=path)
        assert isinstance(dataset.data.train._frames, FileFrames)
        assert "read when needed" in dataset.data.description
        assert "observed" in dataset.data.train[0]  # nobody has looked at all values

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                dict(pth="x"),
                "`pth` is not a setting of custom data; did you mean",
            ),
            (dict(in_len=0), "in_len=0: expected a whole number of at least 1"),
            (dict(out_len=129), "out_len=129: expected at most 128 frames"),
            (dict(space_step=0), "space_step=0: expected a whole number of at least 1"),
            (
                dict(twin_years=1),
                "twin_years=1: expected a whole number from 3 to 1000",
            ),
            (dict(variables="T,P,T"), "variables=T,P,T repeats a name"),
            (
                dict(missing="a"),
                "missing=a: expected numbers, separated by",
            ),
            (
                dict(region=(1, 2)),
                "region=1,2: expected south, north, west",
            ),
            (dict(region=(9, 2, 3, 4)), "region=9,2,3,4: expected south"),
        ],
    )
    def test_impossible_values(self, settings, message):
        with pytest.raises(ValueError, match=message):
            load(**settings)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                dict(variables="T,Q"),
                "cube.nc has no variable 'Q'",
            ),
            (
                dict(targets="p"),
                "targets=p is not one of the variables; did you mean 'P'",
            ),
            (dict(level=500), "^level=500 has no effect"),
            (dict(axes="thw"), "^axes=thw has no effect"),
            (dict(anomalies=True), "anomalies=True needs dates and a training period"),
            (
                dict(in_len=94),
                "in_len=94 and out_len=2 need at least 100 frames.* has 99 .20",
            ),
            (
                dict(in_len=90),
                "train period .* is too short for a window, which needs 90 input and",
            ),
            (dict(region=(50, 60, 0, 9)), "region=50,60,0,9 contains no cells of the"),
            (dict(train_until="2002-01-01"), "train_until=2002-01-01 is outside the"),
        ],
    )
    def test_impossible_values_for_a_file(self, ds, tmp_path, settings, message):
        path = cube_files.write(ds.isel(time=slice(0, 99)), tmp_path / "cube.nc")
        with pytest.raises(ValueError, match=message):
            load(path=path, **settings)

    def test_calendar_needs_dates(self, ds, tmp_path):
        path = cube_files.write(ds.drop_vars("time"), tmp_path / "c.nc")
        with pytest.raises(
            ValueError, match="calendar=True needs dates; c.nc has none"
        ):
            load(path=path, calendar=True)
        with pytest.raises(ValueError, match="anomalies=True needs dates"):
            load(path=path, anomalies=True)

    def test_missing_files(self, path, tmp_path):
        with pytest.raises(FileNotFoundError, match="exist; did you mean 'cube.nc'?"):
            load(path=f"{tmp_path}/cub.nc")
        with pytest.raises(
            FileNotFoundError, match="matches no files; did you mean 'cu"
        ):
            load(path=f"{tmp_path}/cuba*.nc")

    def test_all_missing(self, ds, tmp_path):
        ds["P"].values[:] = np.nan
        path = cube_files.write(ds, tmp_path / "c.nc")
        with pytest.raises(
            ValueError, match="all values of 'P' are missing in the training"
        ):
            load(path=path)
        ds["P"].values[:80] = 1 + ds["T"].values[:80]
        path = cube_files.write(ds, tmp_path / "d.nc")
        with pytest.raises(
            ValueError, match="all values of 'P' are missing in the test per"
        ):
            load(path=path)

    def test_undeclared_fill_value(self, ds, tmp_path):
        ds["T"].values[3:, 1, 1] = -999
        path = cube_files.write(ds, tmp_path / "c.nc")
        with pytest.raises(ValueError, match="of 'T' are -999, far from all other"):
            load(path=path)
        assert load(path=path, missing=-999).data.train[0]["observed"].mean() < 1


class TestAutoencoders:
    """Data whose targets are the inputs: out_len = 0."""

    def test_targets_are_the_inputs(self, path):
        dataset = load(path=path, in_len=6, out_len=0, calendar=True)
        assert isinstance(dataset.task, EmbedSeries)
        for split in ("train", "validation", "test"):
            example = getattr(dataset.data, split)[0]
            assert example["inputs"].shape == (6, 4, 5, 4)
            np.testing.assert_array_equal(
                example["inputs"][..., :2], example["targets"]
            )
            assert example["time"].shape == (6,)

    def test_splits_share_no_frame(self, path):
        dataset = load(path=path, in_len=6, out_len=0)
        last = dataset.data.train[len(dataset.data.train) - 1]["time"][-1]
        assert last < dataset.data.validation[0]["time"][0]

    def test_climatology_is_the_only_reference(self, path):
        dataset = load(path=path, in_len=6, out_len=0)
        (batch,) = pipeline.evaluation_batches([dataset.data.test[0]], 1)
        assert set(dataset.task.references) == {"climatology"}
        assert dataset.task.references["climatology"](batch).shape == (1, 6, 4, 5, 2)

    def test_gaps_are_filled_in_the_input_and_no_target(self, ds, tmp_path):
        ds["T"][50:53, 1, 2] = np.nan
        path = cube_files.write(ds, tmp_path / "gaps.nc")
        dataset = load(path=path, in_len=6, out_len=0)
        gappy = [
            e
            for e in map(dataset.data.train.__getitem__, range(len(dataset.data.train)))
            if not e["observed"].all()
        ]
        assert len(gappy) == 8
        assert all(np.isfinite(e["inputs"]).all() for e in gappy)

    def test_refusals(self, path):
        with pytest.raises(ValueError, match="targets=T has no effect"):
            load(path=path, in_len=6, out_len=0, targets="T")
        with pytest.raises(ValueError, match="in_len=500: expected at most 128"):
            load(path=path, in_len=500, out_len=0)
        with pytest.raises(ValueError, match="in_len=60 needs at least 180 frames"):
            load(path=path, in_len=60, out_len=0)
        with pytest.raises(
            ValueError, match="out_len=-1: expected a whole number of at least 0"
        ):
            load(path=path, out_len=-1)
