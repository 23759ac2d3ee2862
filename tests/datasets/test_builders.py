"""TFDS builders: a prepared folder gives the examples of the source it came from."""

import importlib.util
import pathlib
import subprocess
import sys

import h5py
import numpy as np
import pandas as pd
import pytest

from earthformer_jax import data
from earthformer_jax.data import pipeline
from earthformer_jax.data.enso import icar, icar_tfds
from earthformer_jax.data.mnist import nbody_mnist
from earthformer_jax.data.splits import Dates
from earthformer_jax.settings import settings_from
from tests import golden_files
from tests.data import sst_files

tfds = pytest.importorskip(
    "tensorflow_datasets", reason="tensorflow-datasets is not installed"
)

DATASETS = pathlib.Path(__file__).parents[2] / "datasets"


def builder_class(name: str):
    """The builder in `datasets/<name>`, found as `tfds build` finds it."""
    with tfds.core.utils.add_sys_path(DATASETS):
        return tfds.core.community.builder_cls_from_module(
            f"{name}.{name}_dataset_builder"
        )


def prepare(name: str, folder, config, manual_dir=None):
    """Builds and returns (builder, the prepared folder)."""
    builder = builder_class(name)(data_dir=folder, config=config)
    options = tfds.download.DownloadConfig(manual_dir=manual_dir)
    builder.download_and_prepare(download_config=options)
    return builder, str(builder.data_path)


def assert_same(left, right):
    """Two sources, all examples of both."""
    assert len(left) == len(right)
    for i in range(len(left)):
        a, b = left[i], right[i]
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=f"{key} of {i}")


def assert_batches(dataset, other, batch_size=4):
    """The same first batches through the pipeline."""
    options = dict(batch_size=batch_size, seed=3)
    left, right = (pipeline.train_batches(d.data, **options) for d in (dataset, other))
    for _ in range(3):
        a, b = next(left), next(right)
        assert a["inputs"].shape[0] == batch_size
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize("name", ["icar_enso", "nbody_mnist", "sevir"])
def test_builders_write_array_record_in_order(name, tmp_path):
    builder = builder_class(name)(data_dir=tmp_path)
    assert builder.name == name
    assert builder.info.file_format.value == "array_record"
    assert builder.info.disable_shuffling
    assert not list(tmp_path.iterdir())


LATITUDE = np.array([-5.0, 0.0, 5.0])
LONGITUDE = np.array([90.0, 95.0, 190.0, 215.0, 240.0, 335.0])


@pytest.fixture(scope="module")
def soda(tmp_path_factory):
    folder = tmp_path_factory.mktemp("soda")
    series = sst_files.icar_series(12 * 12 + 24, (3, 6), seed=1)
    nino = sst_files.icar_rows(sst_files.icar_labels(series))
    grid = dict(latitude=LATITUDE, longitude=LONGITUDE)
    sst_files.write_icar(folder, sst_files.icar_rows(series), nino, **grid)
    return folder


@pytest.fixture(scope="module")
def cmip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cmip")
    rows, nino = [], []
    for model, years in enumerate([151] * 15 + [140] * 17):
        months = np.arange(12 * (years - 1) + 36, dtype=np.float32) / 1000
        series = np.broadcast_to(model + months[:, None, None], (len(months), 3, 6))
        rows.append(sst_files.icar_rows(series))
        nino.append(sst_files.icar_rows(model + months))
    rows, nino = np.concatenate(rows), np.concatenate(nino)
    grid = dict(latitude=LATITUDE, longitude=LONGITUDE, name="CMIP")
    sst_files.write_icar(folder, rows, nino, **grid)
    return folder


class TestIcarEnso:
    """SODA is one series split by date; CMIP is 32 series split by model."""

    def test_one_series(self, soda, tmp_path):
        builder, folder = prepare("icar_enso", tmp_path, "soda", soda)
        (example,) = builder.as_data_source("train")
        assert example["sst"].shape == (168, 3, 4)
        assert example["sst"].dtype == np.float32
        assert folder.endswith("icar_enso/soda/1.0.0")
        settings = dict(name="enso", in_len=6, out_len=5, train_until="0007-12")
        prepared = data.load(settings | {"path": folder}, 0)
        direct = data.load(settings | {"path": str(soda)}, 0)
        for split in ("train", "validation", "test"):
            assert_same(getattr(prepared.data, split), getattr(direct.data, split))
        assert_batches(prepared, direct)
        np.testing.assert_array_equal(
            prepared.task.nino_weights, direct.task.nino_weights
        )

    @pytest.mark.parametrize(
        ("split", "counts"),
        [("paper", (5205, 334, 1667)), ("released", (52350, 1679, 1679))],
    )
    def test_climate_models(self, cmip, tmp_path_factory, split, counts):
        place = tmp_path_factory.getbasetemp() / "prepared_cmip"
        builder, folder = prepare("icar_enso", place, "cmip", cmip)
        sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
        assert sizes == {"train": 30, "validation": 1, "test": 1}
        settings = dict(name="enso", split=split, normalization="official")
        prepared = data.load(settings | {"path": folder}, 0)
        direct = data.load(settings | {"path": str(cmip)}, 0)
        splits = prepared.data.train, prepared.data.validation, prepared.data.test
        assert tuple(map(len, splits)) == counts
        for of_split, other in zip(
            splits,
            (direct.data.train, direct.data.validation, direct.data.test),
            strict=True,
        ):
            for i in (0, len(other) // 3, len(other) - 1):
                for key, value in other[i].items():
                    np.testing.assert_array_equal(of_split[i][key], value)
        assert (
            "30 models to train, 1 to validate, 1 to test" in prepared.data.description
        )

    def test_models_have_no_dates(self, cmip, tmp_path_factory):
        place = tmp_path_factory.getbasetemp() / "prepared_cmip"
        _, folder = prepare("icar_enso", place, "cmip", cmip)
        with pytest.raises(ValueError, match="`train_until` cannot be used"):
            months = icar_tfds.read(pathlib.Path(folder))
            icar.divided(months, Dates(train_until="0100-12"))

    def test_refused(self, soda, tmp_path):
        with pytest.raises(
            FileNotFoundError, match="CMIP_train.nc does not exist; put"
        ):
            icar_tfds.examples(soda, "cmip")
        for kind in ("train", "label"):
            (tmp_path / f"CMIP_{kind}.nc").symlink_to(soda / f"SODA_{kind}.nc")
        with pytest.raises(ValueError, match="is read as 1 series; expected 32"):
            icar_tfds.examples(tmp_path, "cmip")

    def test_without_a_folder_of_files(self, tmp_path):
        with pytest.raises(AssertionError, match="does not exist or is empty"):
            prepare("icar_enso", tmp_path, "cmip", tmp_path / "absent")

    def test_real_layout(self, tmp_path):
        train = golden_files.shared_file("data", "enso", "ersstv5_icar_layout_train.nc")
        for kind in ("train", "label"):
            source = train.with_name(f"ersstv5_icar_layout_{kind}.nc")
            (tmp_path / f"SODA_{kind}.nc").symlink_to(source)
        _, folder = prepare("icar_enso", tmp_path / "out", "soda", tmp_path)
        prepared = data.load(dict(name="enso", path=folder), 0)
        direct = data.load(dict(name="enso", path=str(tmp_path)), 0)
        assert_same(prepared.data.train, direct.data.train)


class TestNbodyMnist:
    config = {"train": 6, "validation": 3, "test": 2, "in_len": 4, "out_len": 3}

    def test_frames_are_those_generated(self, tmp_path):
        kind = builder_class("nbody_mnist").builder_config_cls
        own = kind(name="mine", seed=5, data=self.config)
        builder, folder = prepare("nbody_mnist", tmp_path, own)
        assert folder.endswith("nbody_mnist/mine/1.0.0")
        sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
        assert sizes == {"train": 6, "validation": 3, "test": 2}
        frames = builder.as_data_source("train")[0]["frames"]
        assert (frames.shape, frames.dtype) == ((7, 64, 64, 1), np.uint8)
        settings = dict(name="nbody_mnist", in_len=4, out_len=3)
        prepared = data.load(settings | {"path": folder}, 0)
        direct = data.load(self.config | {"name": "nbody_mnist"}, 5)
        for split in ("train", "validation", "test"):
            pairs = zip(
                getattr(prepared.data, split), getattr(direct.data, split), strict=True
            )
            for stored, made in pairs:
                for key in ("inputs", "targets"):
                    np.testing.assert_array_equal(
                        stored[key], np.round(255 * made[key]) / np.float32(255)
                    )
        batch = next(pipeline.train_batches(prepared.data, batch_size=6, seed=3))
        stored = np.stack([x["targets"] for x in prepared.data.train])
        order = [
            int(np.argmin(np.abs(stored - x).sum(axis=(1, 2, 3, 4))))
            for x in batch["targets"]
        ]
        assert sorted(order) == [*range(6)]
        np.testing.assert_array_equal(batch["targets"], stored[order])

    def test_the_paper_needs_mnist(self, tmp_path):
        (tmp_path / "readme").write_text("no digits here")
        with pytest.raises(
            FileNotFoundError, match="contains neither train-images-idx3-ub"
        ):
            prepare("nbody_mnist", tmp_path / "out", "paper", tmp_path)

    def test_sizes(self):
        configs = builder_class("nbody_mnist").builder_configs
        assert list(configs) == ["paper", "embedded", "tiny"]
        for name, sizes in (("paper", (20_000, 1000, 1000)), ("tiny", (64, 16, 16))):
            chosen = settings_from(nbody_mnist.Settings, configs[name].data, "")
            assert (chosen.train, chosen.validation, chosen.test) == sizes


@pytest.fixture(scope="module")
def sevir_folder(tmp_path_factory):
    """Nine events of 13 frames of 12 x 12 pixels, three for each split of the paper."""
    folder = tmp_path_factory.mktemp("sevir")
    (folder / "data/vil").mkdir(parents=True)
    codes = np.random.default_rng(0).integers(0, 255, (9, 12, 12, 13), np.uint8)
    codes[4, :3, :3, 6:] = 255
    dates = ["2018-06-01", "2019-03-01", "2019-08-01"]
    offsets = ":".join(str(5 * t - 30) for t in range(13))
    rows = []
    with h5py.File(folder / "data/vil/events.h5", "w") as file:
        file["vil"] = codes
        file["id"] = np.array([f"S{i}" for i in range(9)], "S4")
    for i in range(9):
        rows.append(
            {
                "id": f"S{i}",
                "file_name": "vil/events.h5",
                "file_index": i,
                "img_type": "vil",
                "time_utc": f"{dates[i // 3]} 12:{i:02d}:00",
                "minute_offsets": offsets,
                "llcrnrlat": 30 + i,
                "llcrnrlon": -100,
                "urcrnrlat": 33.5 + i,
                "urcrnrlon": -96,
                "pct_missing": 0.0,
            }
        )
    pd.DataFrame(rows).to_csv(folder / "CATALOG.csv", index=False)
    return folder


class TestSevir:
    settings = dict(name="sevir", in_len=4, out_len=3, stride=3)

    def test_whole_events(self, sevir_folder, tmp_path):
        builder, folder = prepare("sevir", tmp_path, "full", sevir_folder)
        assert folder.endswith("sevir/full/1.0.0")
        events = builder.as_data_source("validation")
        assert [int(event["event"]) for event in events] == [3, 4, 5]
        event = events[1]
        with h5py.File(sevir_folder / "data/vil/events.h5") as file:
            expected = np.moveaxis(file["vil"][4], -1, 0)
        np.testing.assert_array_equal(event["vil"][..., 0], expected)
        assert event["vil"].dtype == np.uint8
        np.testing.assert_array_equal(
            event["corners"], np.float32([34, -100, 37.5, -96])
        )
        start = np.datetime64("2019-03-01T11:34", "m").astype(int)
        np.testing.assert_array_equal(event["time"], start + 5 * np.arange(13))

    def test_the_pipeline_reads_the_same(self, sevir_folder, tmp_path):
        _, folder = prepare("sevir", tmp_path, "full", sevir_folder)
        prepared = data.load(self.settings | {"path": folder}, 0)
        direct = data.load(self.settings | {"path": str(sevir_folder)}, 0)
        for split in ("train", "validation", "test"):
            assert len(getattr(prepared.data, split)) == 3 * 3
            assert_same(getattr(prepared.data, split), getattr(direct.data, split))
        assert_batches(prepared, direct)
        assert not all(x["observed"].all() for x in prepared.data.validation)

    def test_low_resolution(self, sevir_folder, tmp_path):
        _, folder = prepare("sevir", tmp_path, "lr", sevir_folder)
        prepared = data.load(self.settings | {"path": folder}, 0)
        steps = dict(time_step=2, space_step=3, path=str(sevir_folder))
        direct = data.load(self.settings | steps, 0)
        assert prepared.data.test[0]["inputs"].shape == (4, 4, 4, 1)
        assert prepared.data.display.frame == "10 min"
        for split in ("train", "validation", "test"):
            assert_same(getattr(prepared.data, split), getattr(direct.data, split))

    def test_other_events(self, sevir_folder, tmp_path):
        kind = builder_class("sevir").builder_config_cls
        config = kind(name="mine", data={"split": "fraction"})
        builder, _ = prepare("sevir", tmp_path, config, sevir_folder)
        sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
        # The three events of a day overlap, so they stay together.
        assert sizes == {"train": 3, "validation": 3, "test": 3}

    def test_events_of_several_lengths(self, sevir_folder, tmp_path):
        with h5py.File(sevir_folder / "data/vil/events.h5") as file:
            codes, names = file["vil"][:], file["id"][:]
        place = tmp_path / "data/vil"
        place.mkdir(parents=True)
        for name, frames in (("a.h5", 13), ("b.h5", 9)):
            with h5py.File(place / name, "w") as file:
                file["vil"], file["id"] = codes[..., :frames], names
        table = pd.read_csv(sevir_folder / "CATALOG.csv")
        table["file_name"] = ["vil/a.h5"] * 5 + ["vil/b.h5"] * 4
        table.loc[5:, "minute_offsets"] = "0:5:10:15:20:25:30:35:40"
        table.to_csv(tmp_path / "CATALOG.csv", index=False)
        with pytest.raises(ValueError, match=r"has events of \[9, 13\] frames"):
            prepare("sevir", tmp_path / "out", "full", tmp_path)

    def test_real_sequences(self, tmp_path):
        catalog = golden_files.shared_file("data", "radar", "sevir_layout/CATALOG.csv")
        table = pd.read_csv(catalog)
        (tmp_path / "data").symlink_to(catalog.parent / "data")
        choice = {"split": "fraction", "max_missing": 15.0}
        kind = builder_class("sevir").builder_config_cls
        config = kind(name="radar", time_step=2, space_step=3, data=choice)
        few = table[table["file_name"].str.contains("KNMI")]  # overlap each other
        few.to_csv(tmp_path / "CATALOG.csv", index=False)
        with pytest.raises(ValueError, match="cannot be divided as whole events"):
            prepare("sevir", tmp_path / "no", config, tmp_path)
        few = table[table["file_name"].str.contains("MRMS")].iloc[:3]
        few.to_csv(tmp_path / "CATALOG.csv", index=False)
        _, folder = prepare("sevir", tmp_path / "out", config, tmp_path)
        settings = dict(name="sevir", in_len=7, out_len=6, stride=6)
        steps = dict(time_step=2, space_step=3, path=str(tmp_path))
        prepared = data.load(settings | {"path": folder}, 0)
        direct = data.load(settings | steps | choice, 0)
        assert_same(prepared.data.test, direct.data.test)


class TestBeam:
    """What the builders do with Apache Beam; `test_beam` prepares data with it."""

    options = {"beam_runner": "DirectRunner"}

    def test_it_is_missing(self, tmp_path, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        builder = builder_class("nbody_mnist")(data_dir=tmp_path, config="tiny")
        options = tfds.download.DownloadConfig(**self.options)
        with pytest.raises(ValueError, match="pip install 'earthformer-jax.beam.'"):
            builder.download_and_prepare(download_config=options)
        assert not list(tmp_path.iterdir())

    def test_it_is_not_for_series(self, tmp_path):
        builder = builder_class("icar_enso")(data_dir=tmp_path, config="soda")
        options = tfds.download.DownloadConfig(**self.options)
        with pytest.raises(ValueError, match="icar_enso is prepared by one process"):
            builder.download_and_prepare(download_config=options)
        assert not list(tmp_path.iterdir())


PROGRAM = """
import runpy, sys
build, folder, out = sys.argv[1:]
config = '{"name": "few", "data": {"train": 3, "validation": 1, "test": 1}}'
sys.argv = [build, folder, f"--config={config}", f"--data_dir={out}"]
try:
    runpy.run_path(build, run_name="__main__")
except SystemExit as done:
    assert not done.code, done.code
from earthformer_jax import data
path = f"{out}/nbody_mnist/few/1.0.0"
dataset = data.load(dict(name="nbody_mnist", path=path), 0)
print("targets", dataset.data.train[2]["targets"].shape)
print("tensorflow" in sys.modules)
"""


@pytest.mark.slow
class TestCommand:
    """`datasets/build.py` takes the options of `tfds build`, without TensorFlow."""

    def test_builds(self, tmp_path):
        arguments = [str(DATASETS / "build.py"), str(DATASETS / "nbody_mnist")]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments, str(tmp_path)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-2:] == ["targets (10, 64, 64, 1)", "False"]

    def test_wrong_input(self, tmp_path):
        (tmp_path / "readme").write_text("no data here")
        options = [f"--data_dir={tmp_path}/out", f"--manual_dir={tmp_path}"]
        done = subprocess.run(
            [sys.executable, str(DATASETS / "build.py"), "--config=soda", *options],
            cwd=DATASETS / "icar_enso",
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert f"error: {tmp_path}/SODA_train.nc does not exist" in done.stderr
        assert "Traceback" not in done.stderr
