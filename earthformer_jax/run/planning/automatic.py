"""`model.remat=auto`: what to compute again, chosen from the memory that is there.

The mildest of `ORDER` is chosen whose training step is expected to take no more than
`SHARE` of the memory. As for a plan, the compiled step tells what it takes; one that
would not fit even if the compiler kept only `LEAST_KEPT` of what tracing finds is not
compiled. Programs are cached, so that of the training need not be compiled again.
"""

import dataclasses
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from earthformer_jax.data.dataset import Dataset
from earthformer_jax.models import remat
from earthformer_jax.models.contract import Forecaster
from earthformer_jax.profiling import summary
from earthformer_jax.run.parts import example_shapes, make_model
from earthformer_jax.run.planning import remedies
from earthformer_jax.run.planning.step import compile_step, memory_of
from earthformer_jax.training import mesh as mesh_lib

ORDER = ("none", "dots", "blocks")
# The rest is for the program, its compiler and the data, and for what plans miss.
SHARE = 0.8
# Of what the backward pass needs by tracing, the least that XLA kept of any model
# (`summary.activation_bytes`).
LEAST_KEPT = 0.5


@dataclasses.dataclass(frozen=True)
class Choice:
    """What `auto` stands for.

    Attributes:
        remat: one of `ORDER`.
        peaks: bytes on one device by name, for those that were compiled.
        skipped: bytes that one device keeps at least, for those that were not.
        available: bytes on one device that a step may take.
    """

    remat: str
    peaks: dict[str, int]
    skipped: dict[str, int]
    available: int

    def words(self) -> str:
        """What was chosen, and why."""
        found = [
            f"{name} would keep at least {mesh_lib.size_text(size)}"
            for name, size in self.skipped.items()
        ]
        found += [
            f"{name} needs {mesh_lib.size_text(size)}"
            for name, size in self.peaks.items()
        ]
        fits = self.peaks[self.remat] <= self.available
        return (
            f"config.model.remat=auto is {self.remat} here: {', '.join(found)}, and a "
            f"step may take {mesh_lib.size_text(self.available)}, {SHARE:.0%} of what "
            "is available" + ("" if fits else "; not even the last one fits")
        )


def is_asked_for(config: ml_collections.ConfigDict) -> bool:
    """Whether a config leaves the choice to the machine."""
    return config.model.get("remat") == remat.AUTO


def choose(
    available: int, kept: Callable[[str], int], peak: Callable[[str], int]
) -> Choice:
    """The mildest that fits, or the last one.

    Args:
        available: bytes on one device, of which a step may take `SHARE`.
        kept: bytes on one device that the backward pass needs by tracing, of a name.
        peak: bytes on one device of the compiled step, of a name.
    """
    limit = int(SHARE * available)
    peaks: dict[str, int] = {}
    skipped: dict[str, int] = {}
    for name in ORDER:
        least = int(LEAST_KEPT * kept(name))
        if least > limit and name != ORDER[-1]:
            skipped[name] = least
            continue
        peaks[name] = peak(name)
        if peaks[name] <= limit:
            break
    return Choice([*peaks][-1], peaks, skipped, limit)


def with_remat(
    config: ml_collections.ConfigDict, name: str
) -> ml_collections.ConfigDict:
    """A locked copy of a config with one of `ORDER` in place of `auto`."""
    return remedies.changed(config, {"model.remat": name})


def kept_bytes(
    config: ml_collections.ConfigDict,
    model: Forecaster,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    devices: int,
) -> int:
    """Bytes on one device that the backward pass needs by tracing.

    Args:
        config: the whole config.
        model: of this config.
        shapes: of inputs and targets.
        devices: their number.
    """
    variables = summary.structure(model, shapes[0]).variables
    per_example = summary.activation_bytes(model, *shapes, variables)
    return per_example * config.train.micro_batch // devices


def chosen_for(config: ml_collections.ConfigDict, dataset: Dataset) -> Choice:
    """The choice for a training on the devices at hand.

    In a job of several processes it is that of the one with the least memory.

    Args:
        config: the whole config, with `model.remat=auto`.
        dataset: its data.

    Raises:
        ConfigError: if the devices cannot share the work as the config says.
    """
    shapes, devices = example_shapes(config, dataset), jax.devices()
    is_cpu = devices[0].platform == "cpu"

    def made(name: str) -> tuple[ml_collections.ConfigDict, Forecaster]:
        changed = with_remat(config, name)
        return changed, make_model(changed, *shapes)

    def kept(name: str) -> int:
        return kept_bytes(*made(name), shapes, len(devices))

    def peak(name: str) -> int:
        changed, model = made(name)
        step = compile_step(changed, dataset, model, devices)
        return memory_of(step, changed.train.micro_batch, is_cpu=is_cpu).peak

    return choose(_available(), kept, peak)


def _available() -> int:
    """Bytes on one device, the least of all processes."""
    own = mesh_lib.device_bytes() // len(jax.local_devices())
    if jax.process_count() == 1:
        return own
    mib = np.int32(own // 2**20)  # bytes would need 64 bits
    return int(np.min(multihost_utils.process_allgather(mib))) * 2**20
