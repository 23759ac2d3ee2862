"""The compiled training step of a config, and the memory that it needs."""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from earthformer_jax.data.dataset import Dataset
from earthformer_jax.models.contract import Forecaster
from earthformer_jax.profiling.workspace import largest_convolution
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training.devices.checks import check_devices
from earthformer_jax.training.devices.prepared import prepare
from earthformer_jax.training.feed import AHEAD, USED
from earthformer_jax.training.settings import from_config

# What XLA's CPU runtime takes in addition to the memory of its plan: for threads, code
# and the workspace of products a line through the measured peaks of
# configs/enso.py:quick with 4 and with 48 examples a step (docs/plan.md), and for
# convolutions the largest copies that one of them makes, twice: malloc keeps what is
# freed of the others, or two are computed at the same time.
CPU_RUNTIME_BYTES, CPU_RUNTIME_SHARE = 17 * 2**20, 0.11
CPU_COPIES = 2

# Without what makes machine code fast: the memory that is planned is the same.
UNOPTIMISED = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Bytes on one device, unless it says otherwise.

    Attributes:
        devices: their number.
        micro_batch: examples per gradient, on all devices.
        parameters: trained values.
        averaged: moving averages of the parameters.
        optimizer: state of the optimiser.
        statistics: of batch norms.
        batch: the inputs and targets of a step.
        next_batch: those of the next one, which are copied meanwhile.
        activations: working memory of the program: activations, gradients, and what is
            computed on the way.
        results: of the program, apart from those that take the place of its arguments.
        runtime: estimate of what the runtime takes in addition, and its libraries; on
            CPUs only.
        program: all that the compiler planned.
        compiler_flops: of one device, as XLA counts them: bodies of loops once.
        compiler_bytes: read and written by one device, counted in the same way.
        compile_seconds: how long that took.
    """

    devices: int
    micro_batch: int
    parameters: int
    averaged: int
    optimizer: int
    statistics: int
    batch: int
    next_batch: int
    activations: int
    results: int
    runtime: int
    program: int
    compiler_flops: float | None
    compiler_bytes: float | None
    compile_seconds: float

    @property
    def peak(self) -> int:
        """The expected peak on one device."""
        return self.program + self.next_batch + self.runtime


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A compiled training step, as `training.loop` takes it.

    Attributes:
        program: function of the state and a batch.
        state: shapes and layouts of the state.
        batch: the same of a batch.
        create: makes the state from a key; not compiled yet.
        devices: that the batches are laid over.
        seconds: how long tracing and compiling took.
    """

    program: Any
    state: Any
    batch: Any
    create: Any
    devices: Sequence[Any]
    seconds: float


def compile_step(
    config: ml_collections.ConfigDict,
    dataset: Dataset,
    model: Forecaster,
    devices: Sequence[Any],
    options: Mapping[str, Any] | None = None,
) -> CompiledStep:
    """Compiles the training step of a config; nothing runs.

    Args:
        config: the whole config.
        dataset: data to learn from.
        model: forecaster of the examples.
        devices: to lay the batches over.
        options: of the compiler; `UNOPTIMISED` for a program that nobody runs.

    Raises:
        ConfigError: if the devices cannot share the work as the config says.
    """
    start = time.monotonic()
    settings = from_config(config)
    check_devices(settings, len(devices))
    example = dataset.data.example()
    prepared = prepare(settings, dataset, model, example, devices)
    steps = prepared.program
    used = {name: example[name] for name in USED if name in example}
    batch = steps.batch_like(used)
    traced = steps.take_step.lower(prepared.like, batch)
    return CompiledStep(
        program=traced.compile(compiler_options=options),
        state=prepared.like,
        batch=batch,
        create=prepared.create,
        devices=devices,
        seconds=time.monotonic() - start,
    )


def memory_of(step: CompiledStep, micro_batch: int, *, is_cpu: bool) -> StepMemory:
    """What a compiled step needs.

    Args:
        step: the compiled step.
        micro_batch: examples per gradient, on all devices.
        is_cpu: whether the plan is for CPUs, whose runtime is counted as well.
    """
    planned = step.program.memory_analysis()
    program = mesh_lib.program_bytes(step.program) // len(jax.local_devices())
    one_batch, count = shard_bytes(step.batch), len(step.devices)
    runtime = 0
    if is_cpu:
        runtime = CPU_RUNTIME_BYTES // count + round(CPU_RUNTIME_SHARE * program)
        runtime += CPU_COPIES * largest_convolution(step.program.as_text())
    cost = step.program.cost_analysis() or {}
    outputs = planned.output_size_in_bytes - planned.alias_size_in_bytes
    return StepMemory(
        devices=count,
        micro_batch=micro_batch,
        parameters=shard_bytes(step.state.params),
        averaged=shard_bytes(step.state.ema_params),
        optimizer=shard_bytes(step.state.opt_state),
        statistics=shard_bytes(step.state.batch_stats),
        batch=one_batch,
        next_batch=(AHEAD - 1) * one_batch,
        activations=planned.temp_size_in_bytes,
        results=max(outputs, 0),
        runtime=runtime,
        program=program,
        compiler_flops=cost.get("flops"),
        compiler_bytes=cost.get("bytes accessed"),
        compile_seconds=step.seconds,
    )


def shard_bytes(tree: Any) -> int:
    """Bytes of one device's part of a tree of arrays with layouts."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        shape = leaf.sharding.shard_shape(leaf.shape)
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        total += math.prod(shape) * (16 if is_key else leaf.dtype.itemsize)
    return total
