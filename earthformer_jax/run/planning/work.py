"""What a training step has to compute, for its speed."""

from typing import Any

import jax
import ml_collections

from earthformer_jax.models.contract import Forecaster, Variables
from earthformer_jax.models.ensemble import Ensemble
from earthformer_jax.profiling import machines, summary
from earthformer_jax.training.monitoring.speed import Work

# Of a training step, in forecasts: forward, and twice as much in the backward pass.
FORECASTS_PER_STEP = 3


def flops_of_step(
    model: Forecaster, input_shape: tuple[int, ...], variables: Variables, batch: int
) -> int:
    """Multiplications and additions of the products of a step.

    Three forecasts, whatever is recomputed to save memory.

    Args:
        model: forecaster.
        input_shape: `(t, h, w, c)` of an example.
        variables: shapes and types of the model's variables.
        batch: examples of a step.
    """
    products = summary.forecast_cost(model, input_shape, variables)
    return 2 * FORECASTS_PER_STEP * products * batch


def dtype_of(config: ml_collections.ConfigDict) -> str:
    """The type of the model's arithmetic."""
    return config.precision.compute


def work_of(
    config: ml_collections.ConfigDict,
    model: Forecaster,
    input_shape: tuple[int, ...],
    variables: Variables,
) -> Work:
    """The work of a training step on the devices at hand.

    Args:
        config: the whole config.
        model: forecaster.
        input_shape: `(t, h, w, c)` of an example.
        variables: shapes and types of the model's variables.
    """
    if isinstance(model, Ensemble):
        return Work()  # whose members are trained one by one
    flops = flops_of_step(model, input_shape, variables, config.train.batch_size)
    device: Any = jax.local_devices()[0]  # those of other processes tell nothing
    kind = machines.of_device(device.device_kind, memory_limit(device))
    rate = None if kind is None else kind.rate(dtype_of(config))
    return Work(flops, None if rate is None else rate * jax.device_count())


def memory_limit(device: Any) -> float | None:
    """Bytes that a program can have on a device, None if it does not tell."""
    return (device.memory_stats() or {}).get("bytes_limit")
