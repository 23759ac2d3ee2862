"""Trained models from wherever they are kept."""

import os
import pathlib

import ml_collections

from earthformer_jax.run.loading import exported
from earthformer_jax.run.run import Run
from earthformer_jax.run.trained import TrainedModel

EXPORTED = ".efx"
WEIGHTS = (".pt", ".npz", ".safetensors")


def load(
    what: str | os.PathLike[str], config: ml_collections.ConfigDict | None = None
) -> TrainedModel:
    """Reads a trained model.

    Args:
        what: the workdir of a training; an exported file (`.efx`); a file of official
            weights (`.pt`, `.npz`, `.safetensors`); or the name of a model that comes
            with the package.
        config: of the model, for official weights only.

    Raises:
        ConfigError: if there is nothing of that name, or it cannot be used.
        CheckpointError: if a workdir holds no checkpoint that can be used.
    """
    del config
    path = pathlib.Path(what).expanduser()
    if path.suffix == EXPORTED and not path.is_dir():
        return exported.load(path)
    return Run.of(path).load()
