"""A worker that plans the memory of a training step, and then takes it."""

import ast
import contextlib

import jax
import numpy as np

from benchmarks import machine
from benchmarks.processes import serve
from earthformer_jax.data import pipeline
from earthformer_jax.run import config as config_lib
from earthformer_jax.run.api import load_config
from earthformer_jax.run.planning import remedies
from earthformer_jax.run.planning.step import CompiledStep, compile_step, memory_of
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
    fields = (change.partition("=") for change in changes)
    values = {name: ast.literal_eval(value) for name, _, value in fields}
    this = Run(
        remedies.changed(config_lib.completed(load_config(config)), values), "unused"
    )
    step = compile_step(this.config, this.dataset, this.model, jax.devices())
    planned = memory_of(step, this.config.train.micro_batch, is_cpu=True)
    count = len(jax.devices())
    return dict(
        devices=count,
        program_mib=count * planned.program / MIB,
        planned_mib=count * planned.peak / MIB,
        **_taken(step, _batch(this), steps),
    )


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
    serve({"measure": measure})
