"""Which process of which job this one is, from flags and environment variables.

What is told explicitly comes first, by flags or by the variables in `VARIABLES`; what
is left out is taken from the program that started the processes (`schedulers`).
"""

import dataclasses
from collections.abc import Mapping

from earthformer_jax.run.distributed import schedulers
from earthformer_jax.run.distributed.schedulers import Found, port_in, whole
from earthformer_jax.settings import ConfigError

# Flag: the variable that says the same. JAX reads the first and the last as well.
VARIABLES = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
    "local_devices": "JAX_LOCAL_DEVICE_IDS",
}
_EXAMPLE = "--coordinator=HOST:PORT --num_processes=N --process_id=I"
_KNOWN = "SLURM (srun), MPI (mpirun), Kubernetes JobSet and Cloud TPU"


@dataclasses.dataclass(frozen=True)
class Job:
    """A process and the job it belongs to.

    Attributes:
        coordinator: "HOST:PORT" where process 0 waits for the others; None: JAX finds
            it, and all else, by itself.
        processes: number of processes in the job.
        process: number of this one, from 0.
        local_devices: numbers of the accelerators of this machine that this process
            uses; None: all that it sees.
        source: what told it, for the log.
    """

    coordinator: str | None
    processes: int = 1
    process: int = 0
    local_devices: tuple[int, ...] | None = None
    source: str = "flags"


def find(
    given: Mapping[str, str | int | None],
    environment: Mapping[str, str],
    has_tpu: bool = False,
) -> Job:
    """The job that this process belongs to.

    Args:
        given: values of the flags in `VARIABLES`; None or absent: not given.
        environment: variables of this process.
        has_tpu: whether this machine is a Cloud TPU, whose metadata JAX can ask.

    Raises:
        ConfigError: naming what is missing, wrong or contradictory.
    """
    told, names = _told(given, environment)
    needed = "coordinator", "num_processes", "process_id"
    missing = [name for name in needed if name not in told]
    found = None
    if missing:
        found = schedulers.find(environment, has_tpu)
        if found is None:
            raise ConfigError(_nothing_found(told, missing))
        if found.by_jax:
            if told.keys() & {*needed}:
                raise ConfigError(
                    f"{names[next(n for n in needed if n in told)]}: JAX finds the "
                    f"processes of {found.source} by itself; leave it out, or give "
                    f"all of {_EXAMPLE}"
                )
            return Job(None, local_devices=None, source=found.source)
        _check_agree(told, names, found)
    return _combine(told, names, found)


def _told(given, environment) -> tuple[dict[str, str], dict[str, str]]:
    """What flags and variables say, and how to name where it was said."""
    told, names = {}, {}
    for flag, variable in VARIABLES.items():
        if given.get(flag) is not None:
            told[flag], names[flag] = str(given[flag]), f"--{flag}={given[flag]}"
        elif environment.get(variable):
            told[flag] = environment[variable]
            names[flag] = f"{variable}={environment[variable]}"
    return told, names


def _nothing_found(told: Mapping[str, str], missing: list[str]) -> str:
    if not told.keys() & {"coordinator", "num_processes", "process_id"}:
        return (
            f"--distributed: this process was not started by any of {_KNOWN}; give "
            f"{_EXAMPLE} to each process, or --launch=N to start N of them here"
        )
    flags = " and ".join(f"--{name} (or {VARIABLES[name]})" for name in missing)
    return f"--distributed: {flags} is missing; expected {_EXAMPLE}"


def _check_agree(told, names, found: Found) -> None:
    """Refuses a number of processes other than that of who started them."""
    if "num_processes" not in told or found.processes is None:
        return
    if "process_id" not in told and told["num_processes"] != str(found.processes):
        raise ConfigError(
            f"{names['num_processes']}: {found.source} has started {found.processes} "
            "processes; expected the same number, or --process_id as well"
        )


def _combine(told, names, found: Found | None) -> Job:
    """The whole of what was told and found, checked.

    Raises:
        ConfigError: as `find`.
    """
    processes = process = None
    if "num_processes" in told:
        processes = whole(told["num_processes"], names["num_processes"], least=1)
    elif found is not None:
        processes = found.processes
    if "process_id" in told:
        process = whole(told["process_id"], names["process_id"])
    elif found is not None:
        process = found.process
    coordinator = told.get("coordinator") or (found.coordinator if found else None)
    if processes is None or process is None:
        assert found is not None
        raise ConfigError(f"--distributed: {found.lacks}")
    if coordinator is None and processes > 1:
        assert found is not None
        raise ConfigError(f"--distributed: {found.lacks}")
    coordinator = coordinator or "127.0.0.1:0"
    port_in(coordinator, names.get("coordinator", f"coordinator {coordinator}"))
    if process >= processes:
        where = names.get("process_id", f"process {process}")
        count = names.get("num_processes", f"{processes} processes")
        raise ConfigError(
            f"{where} does not go with {count}: expected 0 to {processes - 1}"
        )
    devices = found.local_devices if found is not None else None
    if "local_devices" in told:
        name = names["local_devices"]
        devices = tuple(whole(x, name) for x in told["local_devices"].split(","))
    source = found.source if found is not None else "flags or variables"
    return Job(coordinator, processes, process, devices, source)
