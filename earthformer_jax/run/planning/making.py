"""A plan: what the training of a config needs, whether it fits, and what would."""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections

from earthformer_jax.models.contract import Forecaster
from earthformer_jax.ops.derivatives import forward_mode
from earthformer_jax.profiling import machines, summary
from earthformer_jax.profiling.machines import CPU, Kind, Machine
from earthformer_jax.run import config as config_lib
from earthformer_jax.run import memory
from earthformer_jax.run.ensembles import members
from earthformer_jax.run.parts import MakeParts, example_shapes
from earthformer_jax.run.planning import automatic, remedies
from earthformer_jax.run.planning.step import (
    UNOPTIMISED,
    StepMemory,
    compile_step,
    memory_of,
)
from earthformer_jax.run.planning.work import dtype_of, flops_of_step, memory_limit
from earthformer_jax.run.run import Run
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training.precision import policy, processor

MOST_SIZES = 3  # of micro-batches that are compiled in search of one that fits


@dataclasses.dataclass(frozen=True)
class Try:
    """Changed settings that were compiled.

    Attributes:
        flags: as they are written.
        peak: bytes on one device.
        fits: whether that is available.
    """

    flags: str
    peak: int
    fits: bool


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """What `--mode=plan` prints.

    Attributes:
        model: its name.
        data: their name.
        input_shape: of an example.
        target_shape: of an example.
        parameter_count: trained values.
        machine: the devices.
        platform: "CPU", "GPU" or "TPU".
        described: whether the devices are not those at hand.
        batch_size: examples per step.
        step: memory of the training step on one device.
        kept: bytes that the backward pass needs of the forward pass on one device, by
            tracing; the compiler may keep less, and has workspace besides.
        available: bytes on one device.
        flops: of the products of a step, on all devices: multiplications and additions.
        rate: that a device can do in a second; None: unknown.
        dtype: of the arithmetic.
        tries: settings that would make it fit, tried.
        advice: further ways.
        notes: what the numbers mean.
    """

    model: str
    data: str
    input_shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    parameter_count: int
    machine: str
    platform: str
    described: bool
    batch_size: int
    step: StepMemory
    kept: int
    available: int
    flops: int
    rate: float | None
    dtype: str
    tries: tuple[Try, ...] = ()
    advice: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the expected peak is available."""
        return self.step.peak <= self.available

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the two that follow from others."""
        values = dataclasses.asdict(self) | {"fits": self.fits}
        return values | {"peak": self.step.peak}


def make(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    machine: Machine | None = None,
    make_parts: MakeParts | None = None,
) -> MemoryPlan:
    """The plan of a training; nothing is written, and no step is taken.

    Args:
        config: the whole config.
        workdir: of the training; what it keeps of its data is used if it exists.
        machine: that the devices at hand simulate; None: those at hand.
        make_parts: as for `Run`.

    Raises:
        ConfigError: if the config, its data or its model cannot be used, or devices
            cannot share the work.
    """
    config, notes = _without_others(config, machine)
    first = Run(config, workdir, make_parts)
    kind = _kind_at_hand() if machine is None else machine.kind
    devices = jax.devices() if machine is None else jax.devices()[: machine.count]
    available = _available(kind, len(devices), machine)

    def compiled(run: Run) -> StepMemory:
        is_cpu, at_hand = kind.platform == CPU, machine is None
        parts = run.config, run.dataset, run.model
        # Devices other than CPUs run the plain functions.
        plain = contextlib.nullcontext() if is_cpu else forward_mode()
        with plain, policy.products(run.config):
            step = compile_step(*parts, devices, None if at_hand else UNOPTIMISED)
        return memory_of(step, run.config.train.micro_batch, is_cpu=is_cpu)

    if automatic.is_asked_for(config) and make_parts is None:
        first, step, note = _chosen(first, available, len(devices), compiled)
        notes.append(note)
    else:
        step = compiled(first)
    shapes = example_shapes(first.config, first.dataset)
    plan = _described(first.config, first.model, shapes, step)
    plan = dataclasses.replace(
        plan,
        data=first.dataset.data.name,
        machine=_name(machine, kind, len(devices)),
        platform=kind.platform,
        described=machine is not None,
        available=available,
        rate=kind.rate(plan.dtype),
        notes=(*notes, *_notes(kind, machine), *_unsuited(kind, plan.dtype)),
    )
    if plan.fits:
        return plan

    def attempt(changes: remedies.Changes) -> Try | None:
        run = _changed(first, remedies.changed(first.config, changes), make_parts)
        try:
            peak = compiled(run).peak
        except ConfigError:  # fields that cannot be divided, for example
            return None
        return Try(remedies.words(changes), peak, peak <= available)

    tries = tuple(_search(first.config, step, available, attempt))
    return dataclasses.replace(
        plan, tries=tries, advice=_advice(first.config, plan, tries)
    )


def _changed(
    run: Run, config: ml_collections.ConfigDict, make_parts: MakeParts | None = None
) -> Run:
    """A run with the data of another one, for a config that differs from its own."""
    other = Run(config, run.workdir, make_parts)
    other.dataset = run.dataset
    return other


def _chosen(
    first: Run, available: int, devices: int, compiled: Callable[[Run], StepMemory]
) -> tuple[Run, StepMemory, str]:
    """What `model.remat=auto` stands for: a run, its step, and a note.

    Args:
        first: run of the config.
        available: bytes on a device.
        devices: their number.
        compiled: gives the memory of a run's step.
    """
    shapes = example_shapes(first.config, first.dataset)
    runs: dict[str, Run] = {}
    steps: dict[str, StepMemory] = {}

    def kept(name: str) -> int:
        run = _changed(first, automatic.with_remat(first.config, name))
        runs[name] = run
        return automatic.kept_bytes(run.config, run.model, shapes, devices)

    def peak(name: str) -> int:
        steps[name] = compiled(runs[name])
        return steps[name].peak

    choice = automatic.choose(available, kept, peak)
    return runs[choice.remat], steps[choice.remat], choice.words()


def _without_others(
    config: ml_collections.ConfigDict, machine: Machine | None
) -> tuple[ml_collections.ConfigDict, list[str]]:
    """The config of one training that CPUs can compile, and what was left out."""
    notes = []
    config = config_lib.completed(config)
    if (size := members.size_of(config)) > 1:
        config = members.config_of(config, 0)
        notes.append(f"of one of {size} members, which are trained one after the other")
    of_cudnn = config.model.get("attn_implementation") == "cudnn"
    if machine is not None and of_cudnn:
        config = remedies.changed(config, {"model.attn_implementation": "xla"})
        notes.append("with the attention of XLA in place of cuDNN's, which needs less")
    return config, notes


def _described(
    config: ml_collections.ConfigDict,
    model: Forecaster,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    step: StepMemory,
) -> MemoryPlan:
    """A plan with what tracing the model tells, before the machine is looked at."""
    found = summary.structure(model, shapes[0])
    per_example = summary.activation_bytes(model, *shapes, found.variables)
    batch = config.train.batch_size
    return MemoryPlan(
        model=config_lib.model_label(config),
        data="",
        input_shape=shapes[0],
        target_shape=shapes[1],
        parameter_count=found.size("params"),
        machine="",
        platform="",
        described=False,
        batch_size=batch,
        step=step,
        kept=per_example * config.train.micro_batch // step.devices,
        available=0,
        flops=flops_of_step(model, shapes[0], found.variables, batch),
        rate=None,
        dtype=dtype_of(config),
    )


def _search(
    config: ml_collections.ConfigDict,
    step: StepMemory,
    available: int,
    attempt: Callable[[remedies.Changes], Try | None],
) -> Iterator[Try]:
    """Tries settings until one fits, the mildest first.

    Args:
        config: the whole config.
        step: memory as it is.
        available: bytes on a device.
        attempt: compiles changed settings; None if they cannot be used.
    """
    others = step.peak - step.activations

    def fits(size: int) -> bool:
        share = size / config.train.micro_batch
        return others + share * step.activations <= available

    shares = step.devices // config.parallel.space
    recompute = remedies.recomputation(config)
    smaller = list(remedies.smaller_batches(config, shares, fits))
    candidates = smaller[:MOST_SIZES]
    if recompute:
        candidates.append(recompute)
        candidates += [recompute | sizes for sizes in smaller[-1:]]
    candidates += remedies.divisions(config, step.devices)
    for changes in candidates:
        tried = attempt(changes)
        if tried is not None:
            yield tried
            if tried.fits:
                return


def _advice(config, plan: MemoryPlan, tries: tuple[Try, ...]) -> tuple[str, ...]:
    """What else would help, by arithmetic."""
    step, lines = plan.step, []
    fixed = step.peak - step.activations - step.batch - step.next_batch
    if fixed > plan.available:
        lines.append(
            "parameters and the state of the optimiser alone do not fit: use a smaller "
            "model"
        )
    elif not any(tried.fits for tried in tries):
        least = min((tried.peak for tried in tries), default=step.peak)
        share = (plan.available - fixed) / max(least - fixed, 1)
        ways = memory.smaller_fields(config) or ["use smaller fields"]
        lines.append(
            f"fields of {math.floor(100 * share)} % of their area, if what a step "
            f"computes with is proportional to it: {', or '.join(ways)}"
        )
    return tuple(lines)


def _kind_at_hand() -> Kind:
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return machines.KINDS[CPU]
    known = machines.of_device(device.device_kind, memory_limit(device))
    platform = {"gpu": machines.GPU, "tpu": machines.TPU}.get(device.platform)
    return known or Kind(device.device_kind, platform or device.platform)


def _available(kind: Kind, count: int, machine: Machine | None) -> int:
    """Bytes of one device that a program can have."""
    if kind.platform == CPU:
        return mesh_lib.host_bytes() // count
    if machine is None:
        return mesh_lib.device_bytes() // len(jax.local_devices())
    if kind.usable is None:
        raise ConfigError(f"the memory of {kind.name} is unknown")
    return int(kind.usable)


def _name(machine: Machine | None, kind: Kind, count: int) -> str:
    return f"{count} x {kind.name}" if machine is None else str(machine)


def _unsuited(kind: Kind, compute: str) -> list[str]:
    """A note on devices that gain nothing from a type."""
    if not kind.rates:  # the machine at hand
        return processor.remarks(compute, jax.local_devices()[0], kind.name)
    lacks = kind.rate(compute) is None
    return [processor.advice(compute, kind.name, kind.platform.lower())] * lacks


def _notes(kind: Kind, machine: Machine | None) -> list[str]:
    if kind.platform == CPU:
        return [
            "all devices share the memory of this machine, of which each has its part; "
            "the program itself, with its compiler, needs 0.5 to 1 GiB more"
        ]
    notes = []
    if machine is not None:
        notes.append(
            "memory as XLA plans it for as many simulated CPU devices: an estimate for "
            "others, whose compilers fuse, order and choose workspace differently"
        )
    if kind.platform == machines.GPU:
        notes.append(
            f"JAX takes {machines.GPU_SHARE:.0%} of a GPU's memory unless "
            "XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise"
        )
    return notes
