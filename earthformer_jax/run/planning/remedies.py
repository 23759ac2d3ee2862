"""Changes of a config that make its training smaller."""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_collections

from earthformer_jax import models
from earthformer_jax.models import remat
from earthformer_jax.training.settings import JIT

Changes = dict[str, Any]
MOST_REMAT = "blocks"


def changed(
    config: ml_collections.ConfigDict, changes: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """A locked copy with other values of some fields, "train.micro_batch" and such."""
    config = copy.deepcopy(config)
    with config.unlocked():
        for name, value in changes.items():
            section, _, field = name.rpartition(".")
            config[section][field] = value
    return config.lock()


def recomputation(config: ml_collections.ConfigDict) -> Changes:
    """The most that the model can compute again in the backward pass; empty: none."""
    name = config.model.name
    known = models.fields(name) if name in models.names() else {}
    now = remat.name_of(config.model.get("remat", "none"))
    if "remat" not in known or now == MOST_REMAT:
        return {}
    return {"model.remat": MOST_REMAT}


def smaller_batches(
    config: ml_collections.ConfigDict, shares: int, fits: Callable[[int], bool]
) -> Iterator[Changes]:
    """Smaller micro-batches, the largest first that an estimate says fit.

    Args:
        config: the whole config.
        shares: parts that a batch is divided into over the devices.
        fits: whether micro-batches of a size are expected to fit.
    """
    now, batch = config.train.micro_batch, config.train.batch_size
    sizes = [
        n for n in range(now - 1, 0, -1) if batch % n == 0 and n % max(shares, 1) == 0
    ]
    for size in [n for n in sizes if fits(n)] or sizes[-1:]:
        yield {"train.micro_batch": size}


def divisions(config: ml_collections.ConfigDict, devices: int) -> Iterator[Changes]:
    """Parts of the parameters, then of the fields, as many as there are devices.

    Args:
        config: the whole config.
        devices: their number.
    """
    parallel = config.parallel
    if parallel.backend != JIT or devices == 1:
        return
    for name, other in (("model", "space"), ("space", "model")):
        most = devices // parallel[other]
        if parallel[name] < most:
            yield {f"parallel.{name}": most}


def words(changes: Mapping[str, Any]) -> str:
    """Changes as flags: "--config.train.micro_batch=4 --config.model.remat=2"."""
    return " ".join(f"--config.{name}={value}" for name, value in changes.items())
