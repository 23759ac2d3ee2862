"""Official weights of an Earthformer as a trained model."""

import copy
import dataclasses
import os
import pathlib

import ml_collections
import numpy as np
import xarray as xr

from earthformer_jax.data.enso import learned
from earthformer_jax.data.state import DataState
from earthformer_jax.interop import official
from earthformer_jax.models.earthformer.model import Earthformer
from earthformer_jax.run import config as config_lib
from earthformer_jax.run import config_files
from earthformer_jax.run.parts import check_model, load_data, make_model
from earthformer_jax.run.trained import TrainedModel
from earthformer_jax.settings import ConfigError

# Data whose units are fixed, so that nothing of a training has to be known.
FIXED_UNITS = ("sevir", "enso", "moving_mnist", "nbody_mnist")


def load(
    path: str | os.PathLike[str],
    config: str | os.PathLike[str] | ml_collections.ConfigDict | None,
) -> TrainedModel:
    """Reads official weights for the model and the data of a config.

    Args:
        path: of the weights (`interop.official.read_state_dict`).
        config: of the model that the weights are for: a name such as "sevir:released",
            a file, also a yaml file of the reference implementation, or a config.

    Raises:
        ConfigError: if the weights cannot be read or are not those of the model, or if
            the config is missing, or of data whose units a training decides.
    """
    if config is None:
        raise ConfigError(
            f"{path}: weights alone do not say which model and data they are for; give "
            "its config, such as sevir:released, enso:released or the yaml file that "
            "comes with the weights"
        )
    if not isinstance(config, ml_collections.ConfigDict):
        config = config_files.load(os.fspath(config))
    config = config_lib.completed(config)
    config_lib.check(config)
    if base := config.model.get("base"):
        raise ConfigError(
            f"{path}: config.model.base={base}: expected none, since official weights "
            "are of a network alone. A hybrid can be trained that begins with these "
            "weights (train.init_from)"
        )
    if (size := config.model.ensemble) > 1:
        raise ConfigError(
            f"{path}: config.model.ensemble={size}: expected 1, since official weights "
            "are of one network"
        )
    if noise := config.model.noise:
        raise ConfigError(
            f"{path}: config.model.noise={noise}: expected 0, since official weights "
            "have no noise layers. A model with noise can be trained that begins with "
            "these weights (train.init_from)"
        )
    state = _state(config, pathlib.Path(path).name)
    shapes = state.input_shape, state.target_shape
    model = make_model(config, *shapes)
    if not isinstance(model, Earthformer):
        raise ConfigError(
            f"{path}: expected the config of an earthformer, got model "
            f"{config.model.name!r}; weights of other models are converted by `interop`"
        )
    check_model(config, model, *shapes)
    try:
        state_dict = official.read_state_dict(pathlib.Path(path).expanduser())
        variables = official.params_from_state_dict(state_dict, model)
    except (ValueError, OSError, ImportError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return TrainedModel(
        model=model,
        variables=variables,
        config=config,
        state=state,
        open_dataset=lambda: load_data(config, state),
        step=0,
        complete=True,
    )


def _state(config: ml_collections.ConfigDict, weights: str) -> DataState:
    """What a model knows of data in fixed units, as the embedded data have them.

    Raises:
        ConfigError: if the units are not fixed.
    """
    fields = config.data
    is_fixed = fields.name in FIXED_UNITS
    if fields.name == "enso":
        is_fixed = fields.normalization in ("auto", "official") and not fields.scale
    if not is_fixed:
        raise ConfigError(
            f"{weights} has no statistics of its training, which data {fields.name!r} "
            f"need; expected one of {', '.join(FIXED_UNITS)}, with "
            "normalization=official for enso. On other data, train a model that begins "
            "with these weights (train.init_from)"
        )
    embedded = copy.deepcopy(config)
    with embedded.unlocked():
        embedded.data.path = ""
        if "catalog_path" in embedded.data:
            embedded.data.catalog_path = ""
    make = load_data(embedded).data.state
    assert make is not None  # data of every name have one
    state = make()
    if fields.name == "enso":
        state = dataclasses.replace(state, fitted=_of_icar(state))
    return dataclasses.replace(
        state,
        description=f"unknown examples of {fields.name!r} (official weights {weights})",
        examples=dict.fromkeys(state.examples, 0),
    )


def _of_icar(state: DataState) -> xr.Dataset:
    """What the reference implementation's models know of ICAR-ENSO.

    Land is not told from the ocean: its anomaly is 0 K, and counts.
    """
    known = learned.unpack(state)
    everywhere = np.ones_like(known.grid.ocean)
    return learned.pack(
        dataclasses.replace(
            known,
            origin=learned.ICAR,
            grid=dataclasses.replace(known.grid, ocean=everywhere),
            land_counts=True,
            fitted=None,
        )
    )
