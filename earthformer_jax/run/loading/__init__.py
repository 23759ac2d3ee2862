"""Trained models from wherever they are kept."""

import dataclasses
import os
import pathlib

import ml_collections

from earthformer_jax.run.loading import exported, shipped
from earthformer_jax.run.programs.kept import Programs
from earthformer_jax.run.run import Run
from earthformer_jax.run.trained import TrainedModel
from earthformer_jax.settings import ConfigError, nearest

EXPORTED = ".efx"
WEIGHTS = (".pt", ".pth", ".ckpt", ".npz", ".safetensors")


def load(
    what: str | os.PathLike[str],
    config: str | os.PathLike[str] | ml_collections.ConfigDict | None = None,
    programs: Programs | None = None,
) -> TrainedModel:
    """Reads a trained model.

    Args:
        what: the workdir of a training; an exported file (`.efx`); a file of official
            weights (`.pt`, `.npz`, `.safetensors`); or the name of a model that comes
            with the package.
        config: of the model, for official weights only: a name ("sevir:released"), a
            file, also a yaml file of the reference implementation, or a config.
        programs: where the programs of its forecasts are kept from process to process;
            None: they are compiled in each.

    Raises:
        ConfigError: if there is nothing of that name, or it cannot be used.
        CheckpointError: if a workdir holds no checkpoint that can be used.
    """
    path = pathlib.Path(what).expanduser()
    if path.suffix.lower() in WEIGHTS and not path.is_dir():
        from earthformer_jax.run.loading import official  # slow

        return dataclasses.replace(official.load(path, config), programs=programs)
    if config is not None:
        raise ConfigError(
            f"{what} has a config of its own; `config` is for official weights "
            f"({', '.join(WEIGHTS)})"
        )
    if path.suffix == EXPORTED and not path.is_dir():
        return exported.load(path, programs)
    if path.is_dir():
        return Run.of(path, programs=programs).load()
    name, known = os.fspath(what), shipped.names()
    if name in known:
        return shipped.load(name, programs)
    problem = "is not a trained model" if path.exists() else "does not exist"
    hint = nearest(name, known)
    expected = f"{hint} Expected" if hint else "; expected"
    raise ConfigError(
        f"{name} {problem}{expected} the workdir of a training, an exported model "
        f"({EXPORTED}), official weights ({', '.join(WEIGHTS)}) with their config, or "
        f"a model that comes with the package ({', '.join(known)})"
    )
