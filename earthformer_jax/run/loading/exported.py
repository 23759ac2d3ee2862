"""Trained models from exported files."""

import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import ml_collections
from flax import traverse_util

from earthformer_jax.forecast import archive
from earthformer_jax.models.contract import Variables
from earthformer_jax.run.config import completed
from earthformer_jax.run.parts import check_model, load_data, make_model
from earthformer_jax.run.programs.kept import Programs
from earthformer_jax.run.trained import TrainedModel
from earthformer_jax.settings import ConfigError

MOST_LINES = 8  # of weights that differ


def load(
    path: str | os.PathLike[str], programs: Programs | None = None
) -> TrainedModel:
    """The model of an exported file, made from its config and weights.

    Its program is not used. `data` of the result reads the files that it was trained
    on, if they are still where they were.

    Args:
        path: of the file.
        programs: as for `loading.load`.

    Raises:
        ConfigError: if the file does not exist, is damaged, or does not fit this
            version of the package.
        OSError: if it cannot be read.
    """
    path = pathlib.Path(path).expanduser()
    if not path.exists():
        raise ConfigError(f"the exported model {path} does not exist")
    found = archive.read(path)
    config = completed(ml_collections.ConfigDict(dict(found.config)))
    state = found.state
    shapes = state.input_shape, state.target_shape
    model = make_model(config, *shapes)
    # Weights of other names or shapes are refused below.
    like = check_model(config, model, *shapes, trained=True, programs=programs)
    return TrainedModel(
        model=model,
        variables=_matched(found.variables, like, path),
        config=config,
        state=state,
        open_dataset=functools.partial(load_data, config, state),
        step=found.metadata.get("step", 0),
        complete=found.metadata.get("complete", True),
        card=found.metadata.get("card", ""),
        programs=programs,
    )


def _matched(variables: Variables, like: Variables, path: pathlib.Path) -> Variables:
    """Weights in the types of the model.

    Raises:
        ConfigError: if names or shapes are not those of the model.
    """
    stored = archive.flatten(variables)
    wanted: dict[str, Any] = traverse_util.flatten_dict(like, sep="/")
    different = [
        f"{name}: {_shape(stored, name)}, expected {_shape(wanted, name)}"
        for name in sorted({*stored, *wanted})
        if _shape(stored, name) != _shape(wanted, name)
    ]
    if different:
        more = len(different) - MOST_LINES
        lines = "".join(f"\n  {line}" for line in different[:MOST_LINES])
        lines += f"\n  and {more} more" if more > 0 else ""
        raise ConfigError(f"{path} holds weights of another model:{lines}")
    made = {name: jnp.asarray(stored[name], wanted[name].dtype) for name in stored}
    return {"params": {}} | archive.unflatten(made)


def _shape(arrays: Mapping[str, Any], name: str) -> str:
    return str(arrays[name].shape) if name in arrays else "none"
