"""A worker that compiles a training step, and says what it needs and exchanges."""

import ast
import contextlib
import time

import jax
import numpy as np

from benchmarks import machine
from benchmarks.processes import serve
from earthformer_jax.data import pipeline
from earthformer_jax.profiling import communication, summary
from earthformer_jax.run import config as config_lib
from earthformer_jax.run.api import load_config
from earthformer_jax.run.planning import remedies, work
from earthformer_jax.run.planning.step import (
    UNOPTIMISED,
    CompiledStep,
    compile_step,
    memory_of,
)
from earthformer_jax.run.run import Run
from earthformer_jax.training import mesh as mesh_lib

MIB = 2**20


def measure(config: str, changes: list[str], steps: int) -> dict:
    """What is planned for a config, and what it takes, in MiB.

    Args:
        config: its name, as for --config.
        changes: "train.batch_size=4" and such.
        steps: of training.
    """
    this = _run(config, changes)
    step = compile_step(this.config, this.dataset, this.model, jax.devices())
    planned = memory_of(step, this.config.train.micro_batch, is_cpu=True)
    count = len(jax.devices())
    return dict(
        devices=count,
        program_mib=count * planned.program / MIB,
        planned_mib=count * planned.peak / MIB,
        **_taken(step, _batch(this), steps),
    )


def exchanges(
    config: str, changes: list[str], per_device: int, counts: list[int]
) -> dict:
    """What the devices exchange in a step, with as many examples on each.

    Args:
        config: its name, as for --config.
        changes: "model.features=4" and such.
        per_device: examples.
        counts: numbers of devices to compile for.

    Returns:
        "kinds", the collectives of the largest number (`communication.total`), and
        "by_count" those of each; "flops_per_device", "dtype" and "parameters".
    """
    by_count, this = {}, None
    for count in counts:
        this = _run(config, [*changes, *_examples(count * per_device)], this)
        devices = jax.devices()[:count]
        step = compile_step(this.config, this.dataset, this.model, devices)
        found = communication.collectives(step.program.as_text(), count)
        by_count[count] = communication.total(found)
    shape = this.dataset.data.example()["inputs"].shape
    variables = summary.structure(this.model, shape).variables
    return dict(
        kinds=by_count[counts[-1]],
        by_count=by_count,
        flops_per_device=work.flops_of_step(this.model, shape, variables, per_device),
        dtype=work.dtype_of(this.config),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
    )


def step_seconds(config: str, changes: list[str], per_device: int, steps: int) -> dict:
    """The shortest of several steps on one device, "measured_s".

    Args:
        config: its name, as for --config.
        changes: as for `exchanges`.
        per_device: examples.
        steps: that are timed, after one that is not.
    """
    this = _run(config, [*changes, *_examples(per_device)])
    step = compile_step(this.config, this.dataset, this.model, jax.devices()[:1])
    state = step.create(jax.random.key(0))
    host = _batch(this)
    batch = jax.device_put(
        {name: np.array(host[name]) for name in step.batch},
        {name: leaf.sharding for name, leaf in step.batch.items()},
    )
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        state, scalars = step.program(state, batch)
        jax.block_until_ready((state, scalars))
        seconds.append(time.perf_counter() - start)
    return dict(measured_s=min(seconds[1:]), seconds=seconds[1:])


_prepared: dict = {}


def planned(config: str, changes: list[str]) -> dict:
    """What a training step needs by its plan, over all devices, "planned_mib".

    Args:
        config: its name, as for --config.
        changes: as for `exchanges`.
    """
    this = _run(config, changes)
    step = compile_step(
        this.config, this.dataset, this.model, jax.devices(), UNOPTIMISED
    )
    memory = memory_of(step, this.config.train.micro_batch, is_cpu=True)
    count = len(jax.devices())
    return dict(devices=count, planned_mib=count * memory.peak / MIB)


def prepare_step(config: str, changes: list[str], per_device: int) -> dict:
    """Compiles a step on one device and takes it once, for `next_step`.

    Args:
        config: its name, as for --config.
        changes: as for `exchanges`.
        per_device: examples.
    """
    this = _run(config, [*changes, *_examples(per_device)])
    step = compile_step(this.config, this.dataset, this.model, jax.devices()[:1])
    host = _batch(this)
    batch = jax.device_put(
        {name: np.array(host[name]) for name in step.batch},
        {name: leaf.sharding for name, leaf in step.batch.items()},
    )
    state = step.create(jax.random.key(0))
    _prepared.update(program=step.program, state=state, batch=batch)
    next_step()
    machine.forget_peak()
    return next_step() | dict(peak_mib=machine.peak_mib())


def next_step() -> dict:
    """Takes the next step after `prepare_step`; its "seconds"."""
    start = time.perf_counter()
    state, scalars = _prepared["program"](_prepared["state"], _prepared["batch"])
    jax.block_until_ready((state, scalars))
    _prepared["state"] = state
    return dict(seconds=time.perf_counter() - start)


def _examples(number: int) -> list[str]:
    """All examples of a step at a time."""
    fields = ("train.batch_size", "train.micro_batch", "eval.batch_size")
    return [f"{field}={number}" for field in fields]


def _run(config: str, changes: list[str], like: Run | None = None) -> Run:
    """A run of a changed config; its data are those of another one if given."""
    fields = (change.partition("=") for change in changes)
    values = {name: ast.literal_eval(value) for name, _, value in fields}
    complete = config_lib.completed(load_config(config))
    run = Run(remedies.changed(complete, values), "unused")
    if like is not None:
        run.dataset = like.dataset
    return run


def _batch(run: Run) -> dict[str, np.ndarray]:
    """A batch of the training split."""
    train = run.config.train
    batches = pipeline.train_batches(
        run.dataset.data, batch_size=train.batch_size, seed=0, num_threads=0
    )
    with contextlib.closing(batches):
        return next(batches)


def _taken(step: CompiledStep, host: dict, steps: int) -> dict:
    """What the steps take beyond what was held before."""
    mesh = mesh_lib.data_mesh(step.devices)
    create = step.create.lower(jax.random.key(0)).compile()
    key = jax.random.key(0)
    used = {name: np.array(host[name]) for name in step.batch}
    del host
    machine.forget_peak()
    before = machine.held_mib()
    state = create(key)
    batches = [
        mesh_lib.put_batch(mesh, {k: np.array(v) for k, v in used.items()})
        for _ in range(2)
    ]
    peaks = []
    for number in range(steps):
        state, scalars = step.program(state, batches[number % 2])
        jax.block_until_ready((state, scalars))
        peaks.append(machine.peak_mib() - before)
    return dict(held_before_mib=before, measured_mib=peaks[-1], peaks_mib=peaks)


if __name__ == "__main__":
    commands = (measure, exchanges, step_seconds, planned, prepare_step, next_step)
    serve({command.__name__: command for command in commands})
