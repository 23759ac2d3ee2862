"""--mode=plan: its output."""

import json
import os
import pathlib
from collections.abc import Iterator

import ml_collections

from earthformer_jax.run.compilation_cache import cache_compilations
from earthformer_jax.run.parts import MakeParts
from earthformer_jax.run.planning import described, making
from earthformer_jax.run.planning.making import MemoryPlan
from earthformer_jax.settings import ConfigError
from earthformer_jax.training.mesh import size_text


def plan(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    devices: str | None,
    output: str | None,
    make_parts: MakeParts | None = None,
) -> MemoryPlan:
    """Makes a plan, prints it, and writes it where that is asked for.

    Args:
        config: the whole config.
        workdir: of the training.
        devices: of a machine, as in "8xH100"; None: those at hand.
        output: JSON file to write; None: none.
        make_parts: as for `Run`; for devices at hand.

    Raises:
        ConfigError: as `making.make`.
        OSError: if the file cannot be written.
    """
    file = None if output is None else pathlib.Path(os.path.expanduser(output))
    if file is not None and file.suffix != ".json":
        raise ConfigError(f"--output={output}: expected a .json file for a plan")
    if file is not None and not file.parent.is_dir():
        raise ConfigError(f"--output={output}: there is no folder {file.parent}")
    if devices is not None and make_parts is not None:
        raise ConfigError("--plan_devices needs data and a model that a config names")
    if devices is None:
        cache_compilations()
        made = making.make(config, workdir, None, make_parts)
    else:
        made = described.make(config, workdir, devices)
    print("\n".join(lines(made)), flush=True)
    if file is not None:
        file.write_text(json.dumps(made.to_json(), indent=2) + "\n")
    return made


def lines(made: MemoryPlan) -> Iterator[str]:
    """A plan as text."""
    step = made.step
    shapes = ("x".join(map(str, s)) for s in (made.input_shape, made.target_shape))
    yield f"{made.model} on {made.data}: {' to '.join(shapes)}"
    simulated = ", simulated on CPU devices" * made.described
    yield f"devices: {made.machine}{simulated}"
    yield (
        f"batch: {made.batch_size} examples a step, {step.micro_batch} at a time, "
        f"{step.micro_batch / step.devices:g} of them on a device"
    )
    yield ""
    rows = {
        f"parameters ({made.parameter_count:,})": step.parameters,
        "averaged parameters": step.averaged,
        "state of the optimiser": step.optimizer,
        "batch statistics": step.statistics,
        "inputs and targets of a step": step.batch,
        "those of the next step": step.next_batch,
        "activations, gradients, workspace": step.activations,
        "other results": step.results,
        "runtime of the CPU": step.runtime,
    }
    yield f"{'on each device':36} {'MiB':>12}"
    yield from (f"  {name:34} {_mib(size):>12}" for name, size in rows.items() if size)
    yield f"{'expected peak':36} {_mib(step.peak):>12}"
    yield f"{'available':36} {_mib(made.available):>12}"
    yield ""
    yield (
        f"it fits: {step.peak / made.available:.1%} of what is available"
        if made.fits
        else f"it does not fit: {size_text(step.peak)} of {size_text(made.available)}"
    )
    yield from _remedies(made)
    yield ""
    yield from _work(made)
    yield from (f"note: {note}" for note in made.notes)


def _remedies(made: MemoryPlan) -> Iterator[str]:
    for tried in made.tries:
        answer = "fits" if tried.fits else "does not fit"
        yield f"  {tried.flags}: {size_text(tried.peak)}, which {answer}"
    yield from (f"  {line}" for line in made.advice)


def _work(made: MemoryPlan) -> Iterator[str]:
    step = made.step
    per_device = made.flops / step.devices
    line = f"products: {per_device:.3g} FLOP a step on each device ({made.dtype})"
    if made.rate is not None:
        line += f", at least {1e3 * per_device / made.rate:.3g} ms at its peak"
    yield line
    yield (
        f"the backward pass needs {_mib(made.kept)} MiB of the forward pass, before "
        "the compiler fuses or recomputes"
    )
    if step.compiler_flops is not None and step.compiler_bytes is not None:
        yield (
            f"the compiler counts {step.compiler_flops:.3g} FLOP and "
            f"{step.compiler_bytes:.3g} bytes, with bodies of loops once; compiled in "
            f"{step.compile_seconds:.0f} s"
        )


def _mib(size: float) -> str:
    return f"{size / 2**20:,.1f}"
