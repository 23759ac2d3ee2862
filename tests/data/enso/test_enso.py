"""The ENSO data set from each of its sources."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from earthformer_jax import data
from earthformer_jax.data import pipeline
from earthformer_jax.data.enso import enso, twin
from earthformer_jax.data.enso.systems import of_twin
from earthformer_jax.data.forecasting.beginnings import Starts
from earthformer_jax.statistics.memory import RATES
from tests import golden_files
from tests.data import sst_files

SMALL_TWIN = dict(twin_train=6, twin_validation=3, twin_test=5)
DATES = dict(train_until="2006-12", validate_until="2009-06")
SHORT = dict(in_len=6, out_len=5)


def load(seed=0, **settings):
    return data.load({"name": "enso"} | settings, seed)


@pytest.fixture(scope="module", autouse=True)
def _short_series_of_the_twin():
    """References of the twin are fitted to fewer months, which takes less time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_twin, "SERIES_MONTHS", 12 * 40)
        of_twin.series.cache_clear()
        of_twin.training.cache_clear()
        yield
    of_twin.series.cache_clear()
    of_twin.training.cache_clear()


@pytest.fixture(scope="module")
def gridded_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gridded")
    return sst_files.write(sst_files.dataset(), folder / "sst.nc")


@pytest.fixture(scope="module")
def icar_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("icar")
    series = sst_files.icar_series(12 * 14, (3, 6), seed=1)
    return sst_files.write_icar(
        folder,
        sst_files.icar_rows(series),
        sst_files.icar_rows(sst_files.icar_labels(series)),
        latitude=[-5.0, 0.0, 5.0],
        longitude=[90.0, 100.0, 190.0, 215.0, 240.0, 335.0],
    )


@pytest.fixture(scope="module")
def every_origin(gridded_path, icar_folder):
    return {
        "twin": load(**SHORT, **SMALL_TWIN),
        "icar": load(path=icar_folder, **SHORT),
        "gridded": load(path=gridded_path, **SHORT, **DATES),
    }


@pytest.fixture(params=["twin", "icar", "gridded"])
def dataset(request, every_origin):
    return every_origin[request.param]


class TestEveryOrigin:
    def test_examples(self, dataset):
        h, w = dataset.task.ocean.shape
        shapes = {
            "inputs": (6, h, w, 1),
            "targets": (5, h, w, 1),
            "start_month": (),
            "nino34": (5,),
            "nino34_three_month": (3,),
        }
        # Of scored windows, for reference forecasts.
        past = {"memory": (len(RATES),), "cell_memory": (h, w)}
        for source in (dataset.data.train, dataset.data.validation, dataset.data.test):
            example = source[len(source) - 1]
            more = {} if source is dataset.data.train else past
            assert {name: x.shape for name, x in example.items()} == shapes | more
            assert example.pop("start_month").dtype == np.int32
            for values in example.values():
                assert values.dtype == np.float32
                assert np.all(np.isfinite(values))

    def test_monthly_index_is_that_of_the_targets(self, dataset):
        example = dataset.data.test[1]
        kelvin = dataset.data.normalization.decode(
            example["targets"].astype(np.float64)
        )
        index = np.sum(kelvin[..., 0] * dataset.task.nino_weights, axis=(1, 2))
        np.testing.assert_allclose(index, example["nino34"], atol=1e-5)

    def test_an_example_is_a_function_of_its_number(self, dataset):
        for name, values in dataset.data.train[2].items():
            np.testing.assert_array_equal(values, dataset.data.train[2][name])

    def test_units_and_back(self, dataset):
        kelvin = np.linspace(-3, 3, 7)
        there = dataset.data.normalization.encode(kelvin)
        np.testing.assert_allclose(
            dataset.data.normalization.decode(there), kelvin, atol=1e-12
        )

    def test_references_are_in_model_units(self, dataset):
        batch = next(iter(pipeline.evaluation_batches(dataset.data.test, 4)))
        for name, forecast in dataset.task.references.items():
            fields = forecast(batch)
            assert fields.shape == batch["targets"].shape, name
            assert fields.dtype == np.float32
            assert np.all(np.isfinite(fields)), name
        ocean = dataset.task.ocean
        last = np.repeat(batch["inputs"][:, -1:], 5, axis=1)
        persistence = dataset.task.references["persistence"](batch)
        np.testing.assert_allclose(
            persistence[:, :, ocean], last[:, :, ocean], atol=1e-6
        )
        land = dataset.data.normalization.decode(
            persistence[:, :, ~ocean].astype(np.float64)
        )
        np.testing.assert_allclose(land, 0, atol=1e-5)

    def test_metric_of_a_perfect_forecast(self, dataset):
        metric = dataset.task.metric
        state = metric.init()
        for batch in pipeline.evaluation_batches(dataset.data.test, 4):
            state = metric.update(state, batch["targets"], batch)
        scores = metric.compute(state)
        assert scores["mse"] == 0
        np.testing.assert_allclose(scores["correlation_monthly"], 1, atol=1e-4)
        assert len(scores["correlation"]) == (
            3 if dataset.task.index_months == 3 else 5
        )

    def test_loss_weights(self, dataset):
        targets = dataset.data.train[0]["targets"]
        weights = np.broadcast_to(dataset.data.loss_weights, targets.shape)
        assert weights[weights > 0].mean() == 1

    def test_description_is_one_line(self, dataset):
        assert "\n" not in dataset.data.description
        sizes = [dataset.data.train, dataset.data.validation, dataset.data.test]
        for source in sizes:
            assert f"({len(source)} windows)" in dataset.data.description


class TestTwin:
    def test_sizes_and_units(self, every_origin):
        dataset = every_origin["twin"]
        sizes = (
            len(dataset.data.train),
            len(dataset.data.validation),
            len(dataset.data.test),
        )
        assert sizes == (6, 3, 5)
        assert dataset.task.index_months == 3
        assert dataset.data.normalization == enso.OFFICIAL
        assert "official" in dataset.task.mse_units
        np.testing.assert_array_equal(
            dataset.data.loss_weights[0, ..., 0], twin.OCEAN_MASK
        )

    def test_simulated_months_are_none_of_the_splits(self, every_origin):
        dataset = every_origin["twin"]
        simulated = dataset.data.simulated[0]["inputs"]
        for source in (dataset.data.train, dataset.data.validation, dataset.data.test):
            assert np.any(source[0]["inputs"] != simulated)

    def test_calendar_channels(self):
        """January is (1, 0), April (0, 1); forecasts read the temperature alone."""
        plain = load(**SHORT, **SMALL_TWIN)
        dataset = load(calendar=True, **SHORT, **SMALL_TWIN)
        example = dataset.data.train[0]
        assert example["inputs"].shape == (6, 24, 48, 3)
        months = (int(example["start_month"]) + np.arange(-6, 0)) % 12
        season = np.stack([np.cos(np.pi * months / 6), np.sin(np.pi * months / 6)], -1)
        np.testing.assert_allclose(example["inputs"][:, 3, 5, 1:], season, atol=1e-6)
        np.testing.assert_array_equal(
            example["inputs"][..., :1], plain.data.train[0]["inputs"]
        )
        batches = [
            next(iter(pipeline.evaluation_batches(d.data.test, 5)))
            for d in (plain, dataset)
        ]
        for name in ("persistence", "ceiling"):
            want, have = (
                d.task.references[name](batch)
                for d, batch in zip((plain, dataset), batches, strict=True)
            )
            np.testing.assert_array_equal(have, want)

    def test_the_seed_decides(self):
        a, b, c = (load(seed, **SHORT, **SMALL_TWIN) for seed in (1, 1, 2))
        np.testing.assert_array_equal(
            a.data.train[4]["inputs"], b.data.train[4]["inputs"]
        )
        assert np.any(a.data.train[4]["inputs"] != c.data.train[4]["inputs"])

    def test_ceiling(self):
        dataset = load(**SHORT, **SMALL_TWIN | {"twin_test": 400})
        batch = next(iter(pipeline.evaluation_batches(dataset.data.test, 400)))
        errors = {
            name: np.mean((forecast(batch) - batch["targets"]) ** 2)
            for name, forecast in dataset.task.references.items()
        }
        assert errors["ceiling"] == min(errors.values())

    def test_anomaly_units(self):
        dataset = load(normalization="anomaly", **SHORT, **SMALL_TWIN)
        assert dataset.data.normalization.offset == 0
        assert 0.3 < dataset.data.normalization.scale < 1.0
        assert dataset.task.mse_units == "K^2"
        assert load(scale=0.5, **SHORT, **SMALL_TWIN).data.normalization.scale == 0.5


class TestIcar:
    def test_memory(self, icar_folder):
        """As an input, in forecasts, and in what a model can correct."""
        config = dict(calendar=True, memory=True, path=icar_folder)
        dataset = load(**config, **SHORT)
        example = dataset.data.test[0]
        assert example["inputs"].shape[-1] == 4 and example["inputs"][..., 3].any()
        assert {"damped_persistence", "lim", "lim_field_memory", "lim_hidden"} == set(
            dataset.data.bases
        )
        state = dataset.data.state()
        found = data.beginnings({"name": "enso"} | config | SHORT, state, Starts("all"))
        first = int(dataset.data.spans["test"].first[0])
        np.testing.assert_array_equal(found.windows[first]["inputs"], example["inputs"])

    def test_official_scaling(self, every_origin):
        dataset = every_origin["icar"]
        assert dataset.data.normalization.decode(0.0) == -16.549121856689453
        assert dataset.data.normalization.decode(1.0) == pytest.approx(
            10.198975563049316
        )
        assert np.all(dataset.data.loss_weights == 1)  # land counts in the reference

    def test_three_month_index_is_the_label(self, every_origin):
        dataset = every_origin["icar"]
        series = sst_files.icar_series(12 * 14, (3, 6), seed=1)
        labels = sst_files.icar_labels(series)
        np.testing.assert_allclose(
            dataset.data.train[7]["nino34_three_month"], labels[13:16], rtol=1e-6
        )


class TestGridded:
    def test_scale_is_that_of_training(self, every_origin):
        dataset = every_origin["gridded"]
        assert dataset.task.index_months == 1
        assert dataset.task.mse_units == "K^2"
        train = dataset.data.train
        first = np.concatenate([train[i]["inputs"] for i in range(0, len(train), 6)])[
            ..., 0
        ]
        assert first[:, dataset.task.ocean].std() == pytest.approx(1, abs=0.05)

    def test_many_files_a_region_and_missing_values(self, tmp_path):
        """As the command line gives them."""
        ds = sst_files.dataset()
        ds["sst"][9, 2, 4] = -99
        for year in range(12):
            part = ds.isel(time=slice(12 * year, 12 * year + 12))
            sst_files.write(part, tmp_path / f"{year}.nc")
        path = f"{tmp_path}/*.nc"
        dataset = load(path=path, missing="-99", region="-8,8,185,250", **SHORT)
        assert "4 x 13 cells 7.5S..7.5N 187.5E..247.5E" in dataset.data.description
        assert "filled 1 missing values" in dataset.data.description

    def test_three_month_index_is_the_mean(self, every_origin):
        example = every_origin["gridded"].data.train[3]
        monthly = example["nino34"]
        np.testing.assert_allclose(
            example["nino34_three_month"],
            [monthly[k : k + 3].mean() for k in range(3)],
            atol=1e-6,
        )

    def test_simulated_windows_look_like_real_ones(self, every_origin):
        dataset = every_origin["gridded"]
        simulated, real = dataset.data.simulated[5], dataset.data.train[0]
        assert {name: (x.shape, x.dtype) for name, x in simulated.items()} == {
            name: (x.shape, x.dtype) for name, x in real.items()
        }
        many = np.stack([dataset.data.simulated[i]["inputs"] for i in range(50)])
        assert 0.3 < many[..., dataset.task.ocean, :].std() < 1.3
        assert not many[..., ~dataset.task.ocean, :].any()

    def test_simulated_months_can_be_left_out(self, gridded_path):
        dataset = load(path=gridded_path, simulated=False, **SHORT, **DATES)
        assert dataset.data.simulated is None

    def test_official_units_can_be_asked_for(self, gridded_path):
        dataset = load(path=gridded_path, normalization="official", **SHORT, **DATES)
        assert dataset.data.normalization == enso.OFFICIAL

    def test_zarr(self, gridded_path, every_origin, tmp_path):
        path = sst_files.write(sst_files.dataset(), tmp_path / "sst.zarr")
        dataset = load(path=path, **SHORT, **DATES)
        np.testing.assert_array_equal(
            dataset.data.test[3]["targets"],
            every_origin["gridded"].data.test[3]["targets"],
        )


class TestSettings:
    def test_config_dict(self):
        config = ConfigDict(dict(name="enso", **SHORT, **SMALL_TWIN)).lock()
        assert len(data.load(config, 0).data.train) == 6

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                dict(name="ensso"),
                "name='ensso' is unknown; there are: enso",
            ),
            (dict(pth="x"), "`pth` is not a setting .* mean `path`?"),
            (dict(out_len=2), "out_len=2: expected a whole number of at least 3"),
            (dict(in_len=0), "in_len=0: expected a whole number of at least 1"),
            (dict(split="x"), "split='x': expected 'paper' or"),
            (dict(normalization="x"), "normalization='x': expected 'auto'"),
            (dict(scale=-1.0), "scale=-1.0: expected a number of at least 0"),
            (dict(scale=1.0, normalization="official"), "scale=1.0 has no effect"),
            (dict(twin_test=0), "twin_test=0: expected a whole number"),
        ],
    )
    def test_impossible_values(self, settings, message):
        with pytest.raises(ValueError, match=message):
            load(**settings)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                dict(train_until="79-12"),
                "train_until='79-12' is not a date; write YYY",
            ),
            (dict(train_until="2010-01", validate_until="2009-12"), "must come after"),
            (dict(validate_until="2006-12"), "must come after train_until=2006-12"),
            (
                dict(train_until="1979-12"),
                "1979-12 is outside the data: sst.nc has 2000-01..2011-12",
            ),
            (
                dict(out_len=40),
                "validation period .2007-01..2009-06. of 30 frames is too",
            ),
            (
                dict(in_len=100),
                "train period .* 100 input and 5 target frames in",
            ),
            (
                dict(variable="sat"),
                "no variable 'sat'; did you mean 'sst'?",
            ),
        ],
    )
    def test_impossible_values_for_a_file(self, gridded_path, settings, message):
        with pytest.raises(ValueError, match=message):
            load(path=gridded_path, **(SHORT | DATES | settings))

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="path=.*not exist"):
            load(path=str(tmp_path / "kaplan.nc"))

    def test_directory_without_data(self, tmp_path):
        with pytest.raises(
            ValueError, match="contains neither CMIP_train.nc nor SODA_train.nc"
        ):
            load(path=str(tmp_path))


def test_kaplan():
    """Real observations with the periods of the README."""
    path = golden_files.shared_file("data", "sst", "kaplan_pacific_ssta_1856_2014.nc")
    dataset = load(path=str(path), train_until="1979-12", validate_until="1984-12")
    sizes = (
        len(dataset.data.train),
        len(dataset.data.validation),
        len(dataset.data.test),
    )
    assert sizes == (1463, 47, 345)
    metric = dataset.task.metric
    means = {}
    for name in ("persistence", "lim"):
        state = metric.init()
        for batch in pipeline.evaluation_batches(dataset.data.test, 64):
            state = metric.update(state, dataset.task.references[name](batch), batch)
        means[name] = np.array(metric.compute(state)["correlation"][:12])
    np.testing.assert_allclose(
        means["persistence"][[0, 2, 5]], [0.95, 0.76, 0.41], atol=0.02
    )
    assert means["lim"].mean() > means["persistence"].mean()
