"""Reports on data sets that have a config of their own."""

import h5py
import numpy as np
import pandas as pd
import pytest

from tests import golden_files
from tests.data import sst_files
from tests.data.mnist.test_digits import write_mnist
from tests.look.reports import command, inspect, proposed, trained_on


class TestLayouts:
    """Files that have a config of their own."""

    def test_monthly_sst(self, tmp_path):
        path = sst_files.write(sst_files.dataset(), tmp_path / "sst.nc")
        assert command(inspect(path)) == ("enso", {"path": path})

    def test_temperature_and_anomaly(self, tmp_path):
        """Both can be the temperature: a command for each, both tried."""
        ds = sst_files.dataset()
        name = next(iter(ds.data_vars))
        both = ds.rename({name: "sst"})
        both["ssta"] = both["sst"] - both["sst"].mean("time")
        report = inspect(sst_files.write(both, tmp_path / "sst.nc"))
        assert "each of sst, ssta could be the sea surface temperature" in report
        enso = [flags for flags in proposed(report) if "enso" in flags[0]]
        assert [flags[-1].rpartition("=")[2] for flags in enso] == ["sst", "ssta"]

    def test_icar(self, tmp_path):
        series = sst_files.icar_series(12 * 14, (24, 72), seed=1)
        sst_files.write_icar(
            tmp_path,
            sst_files.icar_rows(series),
            sst_files.icar_rows(sst_files.icar_labels(series)),
            latitude=np.arange(-55.0, 61, 5),
            longitude=np.arange(0.0, 360, 5),
        )
        report = inspect(tmp_path)
        assert "12 rows of 36 months on 24 x 72 cells" in report
        assert command(report)[0] == "enso"
        (tmp_path / "SODA_label.nc").unlink()
        assert "its labels SODA_label.nc are not in its folder" in inspect(
            str(tmp_path)
        )

    def test_moving_mnist(self, tmp_path):
        np.save(tmp_path / "mnist_test_seq.npy", np.zeros((20, 9, 64, 64), np.uint8))
        for path in (tmp_path, tmp_path / "mnist_test_seq.npy"):
            report = inspect(path)
            assert "9 of 20 frames of 64 x 64" in report
            assert command(report)[0] == "moving_mnist"

    def test_nbody(self, tmp_path):
        """The files name digits of MNIST, which are not there."""
        np.savez(tmp_path / "nbody_train.npz", x=1)
        report = inspect(tmp_path)
        assert "files       nbody_train.npz" in report
        assert "problem     configs/nbody_mnist.py: --config.data.path" in report
        assert not proposed(report)

    def test_digits(self, tmp_path):
        write_mnist(tmp_path)
        report = inspect(tmp_path)
        assert [flags[1] for flags in proposed(report)] == 2 * [
            f"--config.data.digits={tmp_path}"
        ]

    def test_no_digits(self, tmp_path):
        (tmp_path / "train-images-idx3-ubyte.gz").touch()
        report = inspect(tmp_path)
        assert "train-images-idx3-ubyte.gz is not an idx file of images" in report
        assert not proposed(report)

    def test_prepared(self, tmp_path):
        info = '{"name": "sevir", "splits": [{"name": "train"}]}'
        (tmp_path / "dataset_info.json").write_text(info)
        report = inspect(tmp_path)
        assert "prepared by TFDS: sevir, splits train" in report
        assert "problem     configs/sevir.py: " in report and "tfrecord" in report
        assert not proposed(report)

    def test_damaged_description(self, tmp_path):
        (tmp_path / "dataset_info.json").write_text('{"name": ')
        with pytest.raises(ValueError, match="a folder but not a Zarr store"):
            inspect(tmp_path)


class TestSevir:
    """The first command that works is proposed, and why the others do not."""

    def test_catalog_without_files(self, tmp_path):
        (tmp_path / "CATALOG.csv").write_text(
            "id,file_name,file_index,img_type,time_utc,pct_missing\n"
            "S1,a.h5,0,vil,2019-01-01,0\n"
        )
        report = inspect(tmp_path)
        assert "1 rows (vil), 1 of vil, 2019-01-01..2019-01-01" in report
        assert "problem     configs/sevir.py: 1 of 1 files of the catalog" in report
        assert not proposed(report)

    def test_catalog_of_another_name(self):
        path = golden_files.shared_file("data", "sevir", "CATALOG_vil_part.csv")
        report = inspect(path)
        assert "851 rows (vil), 851 of vil, 2019-01-03 18:30:00..2019-07-01" in report
        assert "files of the catalog are not in" in report
        assert not proposed(report)

    def test_an_event_without_pixels(self, tmp_path):
        """Events of one year need `split`, and nothing that adds incomplete ones."""
        event_files(tmp_path, pct_missing=[1.0] + 11 * [0.0])
        report = inspect(tmp_path)
        assert "problem     configs/sevir.py: the validation split" in report
        assert command(report)[1] == {"path": str(tmp_path), "split": "fraction"}
        assert len(trained_on(report).data.train) > 0

    def test_numbers_of_another_type(self, tmp_path):
        event_files(tmp_path, dtype="f4")
        report = inspect(tmp_path)
        assert "'vil' is float32" in report
        assert not proposed(report)

    def test_a_file_that_is_not_there(self, tmp_path):
        event_files(tmp_path)
        with (tmp_path / "CATALOG.csv").open("a") as file:
            row = (tmp_path / "CATALOG.csv").read_text().splitlines()[-1]
            file.write(
                row.replace("S800011", "S900000").replace("vil/2018", "vil/2017")
            )
        assert command(inspect(tmp_path))[1] == {
            "path": str(tmp_path),
            "skip_missing_files": "True",
            "split": "fraction",
        }


def event_files(folder, pct_missing=(0.0,) * 12, dtype="u1"):
    """Twelve events of half a year, with their catalog."""
    name = "vil/2018/SEVIR_VIL_STORMEVENTS_2018_0101_0630.h5"
    ids = [f"S{800000 + i}" for i in range(12)]
    path = folder / "data" / name
    path.parent.mkdir(parents=True)
    codes = np.random.default_rng(0).integers(0, 200, (12, 48, 48, 49)).astype(dtype)
    codes[np.array(pct_missing) == 1] = 255
    with h5py.File(path, "w") as file:
        file["vil"], file["id"] = codes, np.array(ids, "S10")
    days = pd.Timestamp("2018-01-03 12:00") + pd.to_timedelta(14 * np.arange(12), "D")
    table = dict(id=ids, file_name=name, file_index=range(12), img_type="vil")
    table |= dict(time_utc=days, pct_missing=pct_missing)
    table |= dict(minute_offsets=":".join(map(str, range(-120, 121, 5))))
    pd.DataFrame(table).to_csv(folder / "CATALOG.csv", index=False)
