"""--distributed and --launch: their flags, and joining and leaving a job."""

import os
import traceback

from absl import flags

from earthformer_jax.run import interrupts
from earthformer_jax.run.distributed import job, joining, peers
from earthformer_jax.settings import ConfigError

flags.disclaim_key_flags()  # --help names the command that calls `define`

_watches: list[peers.Watch | None] = []  # one in a job; None: JAX watches over it


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    flags.DEFINE_bool(
        "distributed",
        False,
        "Join a job of several processes: that of --coordinator, --num_processes and "
        "--process_id, or of JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and "
        "JAX_PROCESS_ID, or the one that SLURM, MPI, a Kubernetes JobSet or a TPU pod "
        "has started.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT where process 0 waits for the others.",
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "num_processes",
        None,
        "Number of processes in the job.",
        lower_bound=1,
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "process_id",
        None,
        "Number of this process, from 0.",
        lower_bound=0,
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "local_devices",
        None,
        "Accelerators of this machine that this process uses, such as 0,1; default: "
        "all, or its share where several processes of a job run on a machine.",
        flag_values=flag_values,
    )
    flags.DEFINE_float(
        "join_within",
        joining.WITHIN,
        "Seconds that the processes of a job wait for each other at the start.",
        lower_bound=1,
        flag_values=flag_values,
    )
    flags.DEFINE_float(
        "lost_after",
        joining.LOST_AFTER,
        "Seconds without an answer after which another machine is considered lost and "
        "all processes of the job end; the end of a process is noticed at once.",
        lower_bound=5,
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "launch",
        None,
        "Start this many processes of this command on this machine, as one job.",
        lower_bound=1,
        flag_values=flag_values,
    )


def check(flag_values: flags.FlagValues) -> None:
    """Refuses flags of a job where there is none.

    Raises:
        ConfigError: naming them.
    """
    given = [name for name in job.VARIABLES if flag_values[name].value is not None]
    if flag_values.launch is not None and (given or flag_values.distributed):
        other = f"--{given[0]}" if given else "--distributed"
        raise ConfigError(f"--launch starts all processes here; leave out {other}")
    if given and not flag_values.distributed:
        raise ConfigError(f"--{given[0]} needs --distributed")
    if flag_values.launch is None and not flag_values.distributed:
        for name in ("join_within", "lost_after"):
            if flag_values[name].present:
                raise ConfigError(f"--{name} needs --distributed or --launch")


def join(flag_values: flags.FlagValues) -> None:
    """Joins the job that the flags or the environment describe; before JAX starts.

    Raises:
        ConfigError: in one line, if there is none, or the others do not come.
    """
    given = {name: flag_values[name].value for name in job.VARIABLES}
    found = job.find(given, os.environ, joining.has_tpu())
    enter(found, flag_values.join_within, flag_values.lost_after)


def enter(found: job.Job, within: float, lost_after: float) -> None:
    """Joins a job, as `joining.join`, until `leave`."""
    _watches.append(joining.join(found, within, lost_after))


def leave(status: int, why: str = "") -> None:
    """Says goodbye to the other processes of the job; after an error, ends this one.

    Args:
        status: exit status.
        why: the error, if there was one.
    """
    while _watches:
        if (watch := _watches.pop()) is not None:
            watch.leave(status, why)
        if status:  # JAX would wait for the others
            interrupts.end_now(status)


def await_verdicts() -> None:
    """Ends this process if an error follows from the end of another one.

    Computations over all devices, saves among them, fail where a process is lost.
    """
    for watch in filter(None, _watches):
        watch.verdict()


def end_by(error: Exception, status: int) -> None:
    """Ends this process by an error that nothing else has caught, if it is in a job."""
    if not _watches:
        return
    await_verdicts()
    traceback.print_exception(error)
    leave(status, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
