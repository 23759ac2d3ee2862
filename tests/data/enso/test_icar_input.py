"""The test inputs of ICAR-ENSO, arrays without coordinates."""

import numpy as np
import pytest

from earthformer_jax.data.enso import files, icar_input
from earthformer_jax.data.enso.settings import Settings

SHAPE = (12, 24, 72, 4)


def write(path, values):
    np.save(path, values)
    return path


def test_months_and_cells(tmp_path):
    values = np.random.default_rng(0).normal(size=SHAPE)
    path = write(tmp_path / "test_0144-03-02.npy", values)
    months = files.find_icar(Settings(path=str(path)), labels=False)
    assert months.longitude[[0, -1]].tolist() == [95, 330]
    assert months.latitude[[0, -1]].tolist() == [-55, 60]
    (fields,) = months.fields
    np.testing.assert_array_equal(fields, values[:, :, 19:67, 0].astype(np.float32))
    assert months.first_month % 12 == 2  # March
    assert months.cube.period(0, 12) == "0001-03..0002-02"


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("test_1-01-12.npy", np.zeros((12, 24, 72, 3)), r"expected \(months, 24, 72"),
        ("test_1-01-12.npy", np.zeros((24, 72)), "expected .months"),
        ("test_1-01-12.npy", np.zeros(SHAPE, int), "expected finite numbers"),
        ("test_1-01-12.npy", np.full(SHAPE, np.nan), "expected finite numbers"),
        ("test_1-13-12.npy", np.zeros(SHAPE), "13 is not a calendar month"),
    ],
)
def test_other_arrays(tmp_path, name, values, message):
    with pytest.raises(ValueError, match=message):
        icar_input.read(write(tmp_path / name, values))


def test_no_array(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"cut")
    with pytest.raises(ValueError, match="is not a readable .npy file"):
        icar_input.read(tmp_path / "a.npy")
