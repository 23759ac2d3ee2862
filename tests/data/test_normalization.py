"""Physical values to model units and back."""

import numpy as np
import pytest

from earthformer_jax import data
from earthformer_jax.data.normalization import Affine
from tests.data import cube_files


def test_affine():
    units = Affine(scale=2.0, offset=10.0)
    assert units.encode(14.0) == 2 and units.decode(2.0) == 14
    values = np.linspace(-3, 3, 7)
    np.testing.assert_allclose(units.decode(units.encode(values)), values)
    assert Affine().encode(1.5) == Affine().decode(1.5) == 1.5


@pytest.mark.parametrize("anomalies", [False, True])
def test_examples_decode_to_the_values_of_the_file(tmp_path, anomalies):
    ds = cube_files.dataset(500)
    path = cube_files.write(ds, tmp_path / "cube.nc")
    settings = dict(name="custom", path=path, in_len=3, out_len=2, anomalies=anomalies)
    loaded = data.load(settings | dict(targets="P"), 0).data
    example, units = loaded.test[0], loaded.normalization
    minutes = example["time"]
    first = np.searchsorted(
        ds["time"].values, minutes[0].astype("datetime64[m]").astype("datetime64[ns]")
    )
    values = cube_files.stacked(ds, ("P", "T"))[first : first + 5]
    inputs = units.decode(example["inputs"], minutes[:3])
    np.testing.assert_allclose(inputs, values[:3], rtol=1e-5, atol=1e-3)
    targets = units.decode(example["targets"], minutes[3:])  # the first channel alone
    np.testing.assert_allclose(targets, values[3:, ..., :1], rtol=1e-5, atol=1e-3)
    again = units.encode(targets, minutes[3:])
    np.testing.assert_allclose(again, example["targets"], atol=1e-4)
