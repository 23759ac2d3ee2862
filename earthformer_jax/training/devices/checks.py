"""Whether the devices can share the work as the settings say."""

from collections.abc import Sequence

from earthformer_jax.settings import ConfigError
from earthformer_jax.training.settings import JIT, ParallelSettings, Settings


def check_parts(parallel: ParallelSettings, count: int) -> None:
    """Refuses parts of fields and parameters that the devices cannot be divided into.

    Args:
        parallel: settings of the devices.
        count: number of devices of all processes.

    Raises:
        ConfigError: naming the settings and how to change them.
    """
    parts = parallel.space * parallel.model
    if count % parts:
        raise ConfigError(
            f"config.parallel.space={parallel.space} times config.parallel.model="
            f"{parallel.model} does not divide the number of devices, {count}; "
            "expected numbers whose product does, or other devices "
            f"(JAX_NUM_CPU_DEVICES={parts} on a CPU)"
        )


def check_fields(parallel: ParallelSettings, shapes: Sequence[Sequence[int]]) -> None:
    """Refuses parts of fields that cannot be divided into so many.

    Args:
        parallel: settings of the devices.
        shapes: of fields `(t, h, w, c)`.

    Raises:
        ConfigError: naming the setting and the field.
    """
    for _, height, width, _ in shapes:
        if height % parallel.space and width % parallel.space:
            raise ConfigError(
                f"config.parallel.space={parallel.space} divides neither the height "
                f"nor the width of fields of {height} x {width} cells; expected a "
                "number that does"
            )


def check_devices(settings: Settings, count: int, processes: int = 1) -> None:
    """Refuses to divide work in a way that the devices cannot.

    Args:
        settings: of the run.
        count: number of devices of all processes.
        processes: number of processes.

    Raises:
        ConfigError: naming the settings and how to change them.
    """
    parallel, train = settings.parallel, settings.train
    check_parts(parallel, count)
    problems = []
    if parallel.backend != JIT and train.micro_batch % count:
        problems.append(
            f"config.train.micro_batch={train.micro_batch} cannot be shared equally by "
            f"{count} devices, as config.parallel.backend={parallel.backend!r} needs; "
            f"use a multiple of their number, or config.parallel.backend={JIT!r}"
        )
    batches = {
        "train.micro_batch": train.micro_batch,
        "eval.batch_size": settings.eval.batch_size,
    }
    problems += [
        f"config.{name}={size} cannot be shared equally by {processes} processes; use "
        "a multiple of their number"
        for name, size in batches.items()
        if size % processes
    ]
    if count // processes % (parallel.space * parallel.model):
        problems.append(
            f"config.parallel.space={parallel.space} times config.parallel.model="
            f"{parallel.model} does not divide the {count // processes} devices of "
            "each process; expected numbers whose product does"
        )
    if problems:
        raise ConfigError(*problems)
