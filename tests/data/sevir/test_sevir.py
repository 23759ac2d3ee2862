"""The SEVIR data set from each of its sources."""

import pickle

import numpy as np
import pytest
from ml_collections import ConfigDict

from earthformer_jax import data
from earthformer_jax.data import pipeline, tfds_source
from earthformer_jax.data.sevir import sevir
from earthformer_jax.data.sevir.windows import (
    NORMALIZATIONS,
    PreparedEvents,
    Windows,
    block_maximum,
    code_table,
)
from tests.data import sevir_layout

TWIN = dict(space_step=24, twin_train=6, twin_validation=3, twin_test=5)
SHORT = dict(in_len=3, out_len=2)
SPLITS = ("train", "validation", "test")


def load(seed=0, **settings):
    return data.load({"name": "sevir"} | settings, seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sevir_layout.write(tmp_path_factory.mktemp("sevir"))


@pytest.fixture(scope="module")
def prepared(folder):
    """What a TFDS builder stores, as lists."""
    splits = sevir.events(dict(path=str(folder)))
    return {name: [part[i] for i in range(len(part))] for name, part in splits.items()}


@pytest.fixture
def tfds(monkeypatch, prepared):
    monkeypatch.setattr(tfds_source, "is_prepared", lambda path: True)
    monkeypatch.setattr(tfds_source, "open_split", lambda path, split: prepared[split])


def masked(tmp_path):
    """A folder whose event S8 lacks a corner, and all of its first 25 frames."""
    codes = sevir_layout.codes()
    name, number = sevir_layout.place_of("S8")
    codes[name][number, :4, :5] = 255
    codes[name][number, :, :, :25] = 255
    return sevir_layout.write(tmp_path, codes)


def window_of(event, first, step=1, length=25):
    """Frames `[t, h, w]` of an event of `sevir_layout`, from frame `first` on."""
    name, number = sevir_layout.place_of(event)
    frames = np.moveaxis(sevir_layout.codes()[name][number], -1, 0)
    return frames[first::step][:length]


@pytest.fixture(params=["twin", "files", "fraction", "lr", "sevir units"])
def dataset(request, folder):
    settings = {
        "twin": SHORT | TWIN,
        "files": dict(path=str(folder)),
        "fraction": dict(path=str(folder), split="fraction", stride=3),
        "lr": dict(path=str(folder), in_len=7, out_len=6, stride=6, time_step=2)
        | dict(space_step=3),
        "sevir units": dict(path=str(folder), normalization="sevir", crop=(4, 6)),
    }
    return load(**settings[request.param])


class TestEveryOrigin:
    def test_examples(self, dataset):
        shapes = None
        for source in (dataset.data.validation, dataset.data.test):
            for index in (0, len(source) - 1):
                example = source[index]
                found = {name: (x.shape, x.dtype) for name, x in example.items()}
                shapes = shapes or found
                assert found == shapes
                for name in ("inputs", "targets"):
                    assert example[name].dtype == np.float32
                    assert np.all(np.isfinite(example[name]))
                assert example["observed"].dtype == bool
                assert example["observed"].shape == example["targets"].shape
                k = len(example["inputs"]) + len(example["targets"])
                assert example["time"].shape == (k,)
                assert example["time"].dtype == np.int32
                assert len(set(np.diff(example["time"]))) == 1
                assert example["event"].dtype == np.int32

    def test_an_example_is_a_function_of_its_number(self, dataset):
        copy = pickle.loads(pickle.dumps(dataset.data.train))
        assert len(copy) == len(dataset.data.train)
        for name, values in dataset.data.train[2].items():
            np.testing.assert_array_equal(values, copy[2][name])

    def test_ends(self, dataset):
        for index in (-1, len(dataset.data.test)):
            with pytest.raises(IndexError):
                dataset.data.test[index]

    def test_scores(self, dataset):
        batch = next(iter(pipeline.evaluation_batches(dataset.data.test, 3)))
        metric = dataset.task.metric

        def mse(forecast):
            state = metric.update(metric.init(), forecast, batch)
            return metric.compute(state)["mse"]

        assert mse(batch["targets"]) == 0
        forecast = dataset.task.references["persistence"](batch)
        channel = dataset.data.display.channels[0]
        target, last = (
            channel.shown(x) for x in (batch["targets"], batch["inputs"][:, -1:])
        )
        assert forecast.shape == batch["targets"].shape
        want = np.mean((target - last) ** 2) / 255**2
        assert mse(forecast) == pytest.approx(want, rel=1e-4)

    def test_description(self, dataset):
        assert "\n" not in dataset.data.description
        for split in SPLITS:
            size = len(getattr(dataset.data, split))
            assert f"{split} ({size} windows of" in dataset.data.description
        assert dataset.data.display.south_first
        assert dataset.task.mse_units == "(code / 255)^2"


class TestFiles:
    def test_windows_are_frames_of_the_events(self, folder):
        dataset = load(path=str(folder))
        for split in SPLITS:
            source = getattr(dataset.data, split)
            ids = sevir_layout.OF_SPLIT[split]
            assert len(source) == 3 * len(ids)
            for index in range(len(source)):
                want = window_of(ids[index // 3], 12 * (index % 3)) / 255
                example = source[index]
                frames = np.concatenate([example["inputs"], example["targets"]])
                np.testing.assert_allclose(frames[..., 0], want, rtol=1e-6)
                assert len(example["inputs"]) == 13
                assert example["event"] == sevir_layout.row_of(ids[index // 3])

    def test_low_resolution(self, folder):
        """Every second frame, the maximum of 3 x 3 pixels: SEVIR-LR."""
        steps = dict(time_step=2, space_step=3)
        dataset = load(path=str(folder), in_len=7, out_len=6, stride=6, **steps)
        assert dataset.data.display.frame == "10 min"
        for index in range(3):
            want = block_maximum(window_of("S3", 12 * index, 2, 13), 3) / 255
            example = dataset.data.train[index]
            frames = np.concatenate([example["inputs"], example["targets"]])
            np.testing.assert_allclose(frames[..., 0], want, rtol=1e-6)
            assert set(np.diff(example["time"])) == {10}

    def test_files_of_low_resolution(self, folder, tmp_path):
        """They have no ids, half the frames, and the catalog of SEVIR."""
        codes = {
            name: np.stack(
                [
                    np.moveaxis(
                        block_maximum(np.moveaxis(event, -1, 0)[::2].copy(), 3), 0, -1
                    )
                    for event in vil
                ]
            )
            for name, vil in sevir_layout.codes().items()
        }
        sevir_layout.write(tmp_path, codes, with_ids=False)
        lengths = dict(in_len=7, out_len=6, stride=6)
        made = load(path=str(folder), time_step=2, space_step=3, **lengths)
        read = load(path=str(tmp_path), **lengths)
        assert read.data.display.frame == "10 min"
        for index in (0, 4, len(made.data.test) - 1):
            for name, values in made.data.test[index].items():
                np.testing.assert_array_equal(values, read.data.test[index][name])

    def test_time_and_place(self, folder):
        dataset = load(path=str(folder))
        example = dataset.data.train[1]  # the second window of S3
        start = np.datetime64("2019-01-01T00:00", "m") - np.timedelta64(60, "m")
        times = np.datetime64(0, "m") + example["time"]
        np.testing.assert_array_equal(times, start + 5 * np.arange(25))
        np.testing.assert_array_equal(example["corners"], [31, -100, 34, -96])

    def test_without_time_and_place(self, tmp_path):
        table = sevir_layout.catalog().drop(columns=["minute_offsets", "llcrnrlat"])
        sevir_layout.write(tmp_path, table=table)
        example = load(path=str(tmp_path)).data.train[0]
        start = np.datetime64("2018-12-31T22:00", "m")
        times = np.datetime64(0, "m") + example["time"]
        np.testing.assert_array_equal(times, start + 5 * np.arange(25))
        np.testing.assert_array_equal(example["corners"], [np.nan, -100, 34, -96])

    @pytest.mark.parametrize("normalization", ["01", "sevir"])
    def test_missing_pixels_are_no_rain(self, tmp_path, normalization):
        path = masked(tmp_path)
        dataset = load(path=str(path), normalization=normalization)
        no_rain = code_table(NORMALIZATIONS[normalization])[0]
        empty, half, full = (dataset.data.train[index] for index in (3, 4, 5))
        for example in (empty, half, full):
            for name in ("inputs", "targets"):
                assert np.all(example[name][:, :4, :5] == no_rain)
            assert example["observed"].dtype == bool
        assert np.all(empty["inputs"] == no_rain)
        assert not empty["observed"].any()
        assert np.all(half["inputs"] == no_rain)
        for example in (half, full):
            assert not example["observed"][:, :4, :5].any()
            assert example["observed"][:, 4:].all()
        assert full["inputs"][1, 5:].std() > 0
        assert dataset.data.train[0]["observed"].all()

    def test_missing_pixels_do_not_count(self, tmp_path):
        dataset = load(path=str(masked(tmp_path)), split="fraction", validate_until="")
        batch = {name: x[None] for name, x in dataset.data.test[0].items()}
        batch["observed"] = batch["observed"].copy()
        batch["observed"][..., :6, :] = False
        forecast = np.where(batch["observed"], batch["targets"], 0.5)
        metric = dataset.task.metric
        scores = metric.compute(metric.update(metric.init(), forecast, batch))
        assert scores["mse"] == 0

    def test_missing_inputs_leave_extrapolation_finite(self, tmp_path):
        folder = masked(tmp_path)
        dataset = load(path=str(folder), max_missing=100.0)
        unseen = 0
        for batch in pipeline.evaluation_batches(dataset.data.train, 4):
            unseen += (~batch["inputs_observed"][:, -1]).sum()
            found = dataset.task.references["extrapolation"](batch)
            assert np.isfinite(found).all() and found.shape == batch["targets"].shape
        assert unseen

    def test_events_with_missing_pixels_are_reported(self, tmp_path):
        table = sevir_layout.catalog()
        table.loc[sevir_layout.row_of("S4"), "pct_missing"] = 0.3
        table.loc[sevir_layout.row_of("S8"), "pct_missing"] = 0.1
        sevir_layout.write(tmp_path, table=table)
        dataset = load(path=str(tmp_path), max_missing=0.2)
        assert "1 of 9 events with more missing pixels" in dataset.data.description
        assert (
            "1 events with missing pixels, which are masked" in dataset.data.description
        )
        assert len(dataset.data.validation) == 6

    def test_part_of_sevir(self, tmp_path):
        codes = sevir_layout.codes()
        del codes["vil/2019/B.h5"]
        sevir_layout.write(tmp_path, codes)
        with pytest.raises(
            FileNotFoundError,
            match="1 of 2 files of the catalog are not in .*: vil/2019/B.h5; download "
            "them, or set skip_missing_files=True to leave out their 5 of",
        ):
            load(path=str(tmp_path))
        dataset = load(path=str(tmp_path), skip_missing_files=True, split="fraction")
        assert "5 events of 1 missing files" in dataset.data.description
        assert [len(getattr(dataset.data, split)) for split in SPLITS] == [6, 3, 3]
        with pytest.raises(
            ValueError, match="test split .2019-06-01 < time_utc. contains"
        ):
            load(path=str(tmp_path), skip_missing_files=True)

    def test_where_the_catalog_is(self, folder, tmp_path):
        catalog = tmp_path / "mine.csv"
        catalog.write_bytes((folder / "CATALOG.csv").read_bytes())
        want = load(path=str(folder)).data.test[4]["inputs"]
        for settings in (
            dict(path=str(folder), catalog_path=str(catalog)),
            dict(path=str(folder / "data"), catalog_path=str(catalog)),
            dict(path=str(folder / "CATALOG.csv")),
        ):
            np.testing.assert_array_equal(load(**settings).data.test[4]["inputs"], want)

    def test_other_numbers_of_frames(self, tmp_path):
        """Each file gives as many windows as its frames allow."""
        codes = sevir_layout.codes()
        codes["vil/2019/B.h5"] = codes["vil/2019/B.h5"][..., :37]
        table = sevir_layout.catalog()
        short = table.file_name == "vil/2019/B.h5"
        table.loc[short, "minute_offsets"] = ":".join(map(str, range(0, 74, 2)))
        sevir_layout.write(tmp_path, codes, table)
        dataset = load(path=str(tmp_path))
        assert [len(getattr(dataset.data, split)) for split in SPLITS] == [6, 8, 8]
        assert dataset.data.display.frame == "2 or 5 min"
        assert set(np.diff(dataset.data.test[0]["time"])) == {2}

    def test_events(self, folder):
        splits = sevir.events(dict(path=str(folder)))
        assert tuple(splits) == SPLITS
        for split, ids in sevir_layout.OF_SPLIT.items():
            events = list(splits[split])
            assert len(events) == len(ids)
            for event, name in zip(events, ids, strict=True):
                want = window_of(name, 0, length=49)[..., None]
                np.testing.assert_array_equal(event["vil"], want)
                assert {key: (x.shape, x.dtype) for key, x in event.items()} == {
                    "vil": ((49, 12, 12, 1), np.uint8),
                    "time": ((49,), np.int32),
                    "corners": ((4,), np.float32),
                    "event": ((), np.int32),
                }
        with pytest.raises(ValueError, match="path='': expected the folder with CATAL"):
            sevir.events({})


class TestPrepared:
    def test_same_examples_as_from_the_files(self, folder, tfds):
        read = load(path="prepared/sevir/1.0.0", space_step=2, time_step=2, in_len=5)
        assert "prepared in prepared/sevir/1.0.0" in read.data.description
        splits = sevir.events(dict(path=str(folder)))
        for split in SPLITS:
            made = Windows(splits[split], 5, 12, time_step=2, space_step=2)
            source = getattr(read.data, split)
            assert len(source) == len(made)
            for index in (0, len(made) - 1):
                for name, values in made[index].items():
                    np.testing.assert_array_equal(values, source[index][name])

    def test_too_few_frames(self, tfds):
        with pytest.raises(
            ValueError, match="has 49 frames per event .train., but one"
        ):
            load(path="prepared", in_len=40)

    def test_cadence(self, prepared):
        assert PreparedEvents(prepared["test"]).minutes == {5}


class TestTwin:
    def test_default_is_the_size_of_sevir(self):
        dataset = load()
        assert [len(getattr(dataset.data, s)) for s in SPLITS] == [
            35_718,
            9_060,
            12_159,
        ]
        assert "embedded radar twin (seed 0)" in dataset.data.description
        assert "384 x 384 pixels" in dataset.data.description

    @pytest.mark.parametrize("normalization", NORMALIZATIONS)
    def test_rain_that_moves_on_is_nearer_than_the_last_frame(self, normalization):
        settings = TWIN | dict(space_step=12, in_len=4, out_len=3)
        dataset = load(**settings, normalization=normalization)
        (batch,) = pipeline.evaluation_batches(dataset.data.test, 5)
        error = {
            name: np.square(dataset.task.references[name](batch) - batch["targets"])
            for name in ("persistence", "extrapolation")
        }
        assert error["extrapolation"].mean() < 0.6 * error["persistence"].mean()

    def test_one_input_frame_shows_no_motion(self):
        dataset = load(**TWIN, in_len=1, out_len=2)
        assert list(dataset.task.references) == ["persistence"]

    def test_the_seed_decides(self):
        a, b, c = (load(seed, **SHORT, **TWIN) for seed in (1, 1, 2))
        np.testing.assert_array_equal(
            a.data.train[4]["inputs"], b.data.train[4]["inputs"]
        )
        assert np.any(a.data.train[4]["inputs"] != c.data.train[4]["inputs"])

    def test_everything_is_observed(self):
        dataset = load(**SHORT, **TWIN)
        assert dataset.data.train[0]["observed"].all()
        assert dataset.data.display.frame == "5 min"
        assert load(time_step=3, **SHORT, **TWIN).data.display.frame == "15 min"
        assert dataset.data.train[2]["time"][0] == 2 * 24 * 60

    def test_workers_see_the_same(self):
        dataset = load(**SHORT, **TWIN, crop=(8, 8), flip=True, rotate=True)
        batches = [
            pipeline.train_batches(
                dataset.data, batch_size=3, seed=0, num_threads=threads
            )
            for threads in (0, 4)
        ]
        for _ in range(4):
            a, b = (next(part) for part in batches)
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])
            assert a["inputs"].shape == (3, 3, 8, 8, 1)
            assert a["observed"].shape == (3, 2, 8, 8, 1)


class TestAugmentation:
    def test_none(self):
        assert load(**SHORT, **TWIN).data.augment is None

    def test_crops(self, folder):
        whole = load(path=str(folder))
        dataset = load(path=str(folder), crop=[4, 6])
        middle = dataset.data.test[3]
        np.testing.assert_array_equal(
            middle["inputs"], whole.data.test[3]["inputs"][:, 4:8, 3:9]
        )
        np.testing.assert_array_equal(
            middle["observed"], whole.data.test[3]["observed"][:, 4:8, 3:9]
        )
        example = dataset.data.augment(dataset.data.train[0], np.random.default_rng(0))
        assert example["targets"].shape == (12, 4, 6, 1)
        assert "4 x 6 of 12 x 12 pixels" in dataset.data.description

    def test_errors(self, folder):
        for settings, message in (
            (dict(crop=(13, 4)), "crop=.13, 4.: expected rows and columns"),
            (dict(crop=(4, 6), rotate=True), "rotate=True needs square"),
        ):
            with pytest.raises(ValueError, match=message):
                load(path=str(folder), **settings)


class TestSettings:
    def test_config_dict(self):
        config = ConfigDict(dict(name="sevir", crop=(), **SHORT, **TWIN)).lock()
        assert len(data.load(config, 0).data.train) == 6

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (dict(pth="x"), "`pth` is not a setting of the SEVIR data; did you"),
            (dict(in_len=0), "in_len=0: expected a whole number of at least 1"),
            (dict(stride=0), "stride=0: expected a whole number of at least 1"),
            (dict(time_step=0), "time_step=0: expected a whole number of at least 1"),
            (dict(space_step=0), "space_step=0: expected a whole number of at least 1"),
            (dict(space_step=5), "space_step=5 does not divide the 384"),
            (dict(twin_test=0), "twin_test=0: expected a whole number of at least 1"),
            (
                dict(normalization="O1"),
                "normalization='O1': expected '01' or 'sevir'",
            ),
            (dict(split="random"), "split='random': expected 'date' or 'fraction'"),
            (
                dict(max_missing=-1.0),
                "max_missing=-1.0: expected a number of at least 0",
            ),
            (dict(catalog_path="c.csv"), "catalog_path=c.csv needs `path`"),
            (dict(train_until=""), "train_until='' is not a date; write YYYY"),
            (dict(train_until="1/1/19"), "train_until='1/1/19' is not a date"),
        ],
    )
    def test_impossible_values(self, settings, message):
        with pytest.raises(ValueError, match=message):
            load(**settings)

    def test_step_that_does_not_divide_the_pictures(self, folder):
        with pytest.raises(
            ValueError, match="space_step=5 does not divide the 12 x 12"
        ):
            load(path=str(folder), space_step=5)

    def test_missing_path(self, folder, tmp_path):
        with pytest.raises(FileNotFoundError, match="path=.*not exist"):
            load(path=str(folder) + "x")
        with pytest.raises(
            FileNotFoundError,
            match="contains no CATALOG.csv .it contains: nothing.; give the",
        ):
            load(path=str(tmp_path))
        with pytest.raises(FileNotFoundError, match="catalog_path=.*CATALOF"):
            load(path=str(folder), catalog_path=str(folder / "CATALOF.csv"))
