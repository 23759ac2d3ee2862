"""The configs that come with the project can be run as they are."""

import importlib.util
import pathlib

import pytest

from earthformer_jax import config as config_lib
from earthformer_jax import main

FILE = pathlib.Path(__file__).parents[1] / "configs" / "enso.py"
spec = importlib.util.spec_from_file_location("enso_config", FILE)
enso = importlib.util.module_from_spec(spec)
spec.loader.exec_module(enso)


@pytest.mark.parametrize("variant", enso.VARIANTS)
def test_enso(variant):
    config = enso.get_config(variant)
    config_lib.check(config)
    dataset, _ = main.build(config)
    config_lib.check_dataset(config, dataset)


def test_unknown_variant():
    with pytest.raises(ValueError, match="configs/enso.py:huge is unknown"):
        enso.get_config("huge")
