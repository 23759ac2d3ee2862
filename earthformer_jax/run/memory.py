"""Whether a training fits into memory, asked before anything large is made."""

import math
from typing import Any

import jax
import ml_collections

from earthformer_jax.models.contract import Forecaster, Variables
from earthformer_jax.models.earthformer.model import Earthformer
from earthformer_jax.models.earthformer.sizes import AttentionSize, attention_sizes
from earthformer_jax.models.hybrid import network_of
from earthformer_jax.settings import ConfigError, flatten
from earthformer_jax.training.mesh import device_bytes, host_bytes, size_text
from earthformer_jax.training.settings import Settings

# The pattern with the fewest positions in a cuboid, for each option.
NARROWEST = {
    "enc_pattern": "axial",
    "dec_self_pattern": "axial",
    "dec_cross_pattern": "cross_1x1",
}
ADAM_COPIES = 4  # parameters, their gradient, and the two moments of Adam


def check_attention(
    config: ml_collections.ConfigDict, model: Forecaster, batch: str = ""
) -> None:
    """Rejects attention between more positions than memory can hold.

    Tracing such a model would already allocate an index of all pairs of positions.

    Args:
        config: the whole config.
        model: the checked model.
        batch: the field with the number of examples, "train.micro_batch"; empty
            (default): one example.

    Raises:
        ConfigError: with the memory that is needed, what there is, and what to change.
    """
    model = network_of(model)
    if not isinstance(model, Earthformer):
        return
    fields = flatten(config)
    examples = fields[batch] if batch else 1
    host, device = host_bytes(), device_bytes()

    def too_large(model: Earthformer, examples: int) -> list[AttentionSize]:
        return [
            size
            for size in attention_sizes(model)
            if size.index_bytes > host or size.score_bytes(examples) > device
        ]

    sizes = too_large(model, examples)
    if not sizes:
        return
    remedies = smaller_fields(config)
    narrow: dict[str, Any] = {x.option: NARROWEST[x.option] for x in sizes}
    for changes in (narrow, {}):
        changed = model.clone(**changes)
        fewer = [
            n
            for n in range(examples, 0, -1)
            if examples % n == 0 and not too_large(changed, n)
        ]
        if fewer:
            words = [f"config.model.{name}={value}" for name, value in changes.items()]
            if fewer[0] < examples:
                words.append(f"config.{batch}={fewer[0]}")
            remedies.insert(0, f"use {' with '.join(words)}")
    largest = max(sizes, key=lambda x: (x.queries * x.keys, x.cuboids))
    index = largest.index_bytes
    raise ConfigError(
        f"config.model.{largest.option}={getattr(model, largest.option)!r} lets "
        f"{largest.queries:,} positions attend to {largest.keys:,} in a field of "
        f"{model.input_shape[1]} x {model.input_shape[2]} cells. Their scores need "
        f"{size_text(largest.score_bytes(examples))} for "
        + (f"config.{batch}={examples}" if batch else "one example")
        + (f" and their index {size_text(index)}" if index else "")
        + f", but there are {size_text(min(host, device))}. Please "
        + ", or ".join(remedies or ["use a smaller field"])
    )


def check_step(
    config: ml_collections.ConfigDict,
    settings: Settings,
    variables: Variables,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    """Rejects parameters and batches that memory cannot hold.

    Only what a step needs at least is counted: parameters with the state of the
    optimiser, and one batch on the host.

    Args:
        config: the whole config, for the remedies.
        settings: of the training.
        variables: shapes and types of the model's variables.
        shapes: of inputs and targets.

    Raises:
        ConfigError: with the memory that is needed and what there is.
    """
    leaves = jax.tree.leaves(variables)
    state = sum(x.size * x.dtype.itemsize for x in leaves)
    state *= ADAM_COPIES + (settings.optim.ema_decay > 0)
    count = len(jax.local_devices())
    available = device_bytes() // (count if _has_own_memory() else 1)
    if state > available:
        raise ConfigError(
            f"model {config.model.name!r}: parameters and the state of the optimiser "
            f"need {size_text(state)}, but there are {size_text(available)}. Please "
            "use a smaller model"
        )
    batches = {
        "config.train.batch_size": settings.train.batch_size,
        "config.eval.batch_size": settings.eval.batch_size,
    }
    example = 4 * sum(math.prod(shape) for shape in shapes)
    for name, size in batches.items():
        if size * example > host_bytes():
            remedies = [f"lower {name}", *smaller_fields(config)]
            raise ConfigError(
                f"{name}={size}: a batch needs {size_text(size * example)}, but there "
                f"are {size_text(host_bytes())}. Please {', or '.join(remedies)}"
            )


def _has_own_memory() -> bool:
    """Whether each device has memory of its own."""
    return jax.local_devices()[0].platform != "cpu"


def smaller_fields(config: ml_collections.ConfigDict) -> list[str]:
    """Ways to make the fields smaller that the data set of a config has."""
    ways = {
        "space_step": "coarsen the fields with config.data.space_step",
        "region": "cut out a config.data.region",
        "crop": "cut out a part with config.data.crop",
    }
    return [way for field, way in ways.items() if field in config.data]
