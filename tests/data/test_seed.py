"""The seed of the data decides what is drawn; that of the model does not."""

import numpy as np
import pytest

import earthformer_jax as ef
from earthformer_jax import data
from earthformer_jax.data.dataset import DataSettings
from tests.data import sst_files

SMALL = {
    "enso": dict(in_len=2, out_len=3, twin_train=2, twin_validation=1, twin_test=2),
    "moving_mnist": dict(train=2, validation=1, test=2),
    "nbody_mnist": dict(train=2, validation=1, test=2, in_len=1, out_len=1),
    "sevir": dict(
        space_step=48, in_len=2, out_len=1, twin_train=2, twin_validation=1, twin_test=2
    ),
    "climate": dict(in_len=2, out_len=1, twin_years=3),
    "custom": dict(in_len=2, out_len=1, twin_years=3),
}


def same(one, other):
    return all(np.array_equal(x, other[name]) for name, x in one.items())


@pytest.mark.parametrize("name", data.MODULES)
def test_test_sets_are_those_of_the_data_seed(name):
    changes = {f"data.{field}": value for field, value in SMALL[name].items()}

    def test_example(**seeds):
        config = ef.load_config(f"{name}:test", changes | seeds)
        return ef.load_data(config).data.test[1]

    first = test_example()
    assert same(first, test_example(seed=1))
    assert not same(first, test_example(**{"data.seed": 1}))


def test_simulated_months(tmp_path):
    path = sst_files.write(sst_files.dataset(), tmp_path / "sst.nc")

    def simulated(seed):
        settings = dict(name="enso", path=path, in_len=2, out_len=3, seed=seed)
        source = data.load(settings).data.simulated
        assert source is not None
        return source[0]

    assert same(simulated(0), simulated(0))
    assert not same(simulated(0), simulated(1))


def test_without_one_in_the_config():
    """As a function's argument, which a config overrides."""
    small = {"name": "sevir"} | SMALL["sevir"]
    one = data.load(small, 1).data.test[0]
    assert same(one, data.load(small | {"seed": 1}).data.test[0])
    assert same(one, data.load(small | {"seed": 1}, 2).data.test[0])
    default = data.load(small | {"seed": DataSettings.seed}).data.test[0]
    assert same(default, data.load(small).data.test[0])
    assert not same(one, default)


def test_impossible_seed():
    with pytest.raises(ValueError, match="seed=-1: expected a whole number"):
        data.load({"name": "enso", "seed": -1})
