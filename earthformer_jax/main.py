"""The command line: one config, one workdir.

python -m earthformer_jax.main --config=configs/enso.py:quick --workdir=runs/quick
python -m earthformer_jax.main --workdir=runs/quick --mode=evaluate
python -m earthformer_jax.main --workdir=runs/mine --mode=evaluate \
    --config.data.path=later.nc
python -m earthformer_jax.main --workdir=runs/mine --mode=evaluate \
    --protocol=sevir-challenge
python -m earthformer_jax.main --mode=compare --workdirs=runs/mine,runs/other
python -m earthformer_jax.main --workdir=runs/mine --mode=forecast \
    --input='today/*.nc' --output=forecast.nc
python -m earthformer_jax.main --workdir=runs/mine --mode=export --output=mine.efx
python -m earthformer_jax.main --config=configs/enso.py:quick --mode=summary
python -m earthformer_jax.main --mode=summary --all
python -m earthformer_jax.main --config=configs/enso.py:quick --mode=fields
python -m earthformer_jax.main --config=configs/enso.py --mode=plan \
    --plan_devices=8xH100

Any field can be changed: --config.optim.lr=3e-4. Running the same command again resumes
interrupted training. The exit status is 0 on success, 143 after SIGTERM, Ctrl-C, SIGHUP
or SIGUSR1 (the last step is saved), 2 for invalid input and for files that cannot be
read or written, 1 if the loss is not finite, and 75 if another process of the job was
lost (`--distributed`, `--launch`): the same command continues.
"""

from earthformer_jax.run import cpu, interrupts

if __name__ == "__main__":
    cpu.restart_with_huge_pages()
    interrupts.end_when_asked()

# ruff: noqa: E402
import logging
import os
import pathlib
import sys
import traceback
from collections.abc import Sequence

import jax
import ml_collections
from absl import app, flags
from ml_collections import config_flags

from earthformer_jax.run import command_line, loading
from earthformer_jax.run import workdir as workdir_lib
from earthformer_jax.run.command_line import DONE, WRONG_INPUT, as_config_error
from earthformer_jax.run.compilation_cache import cache_compilations
from earthformer_jax.run.config import list_fields
from earthformer_jax.run.distributed import job, joining, launching, peers
from earthformer_jax.run.forecasting import command
from earthformer_jax.run.interrupts import STOPPED
from earthformer_jax.run.parts import MakeParts, summarize
from earthformer_jax.run.programs import kept as programs
from earthformer_jax.run.run import Run
from earthformer_jax.settings import ConfigError
from earthformer_jax.training.checkpoint import CheckpointError
from earthformer_jax.training.monitoring.trace import Trace
from earthformer_jax.training.monitoring.trace import parse as parse_trace
from earthformer_jax.training.scalars import NonFiniteError
from earthformer_jax.training.signals import Stopped, TrainingError

DIVERGED = 1
_BY_ALL = ("train", "evaluate")  # modes in which the processes of a job share the work

_CONFIG = command_line.define_config(flags.FLAGS)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for all output; default runs/<config>-<variant>."
)
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "compare", "forecast", "export", "summary", "fields", "plan"],
    "Train and score, score only, compare the scores of several workdirs, forecast "
    "from the latest frames into a NetCDF or Zarr file, write the model into one file, "
    "print what the model consists of and costs, list every field of the config with "
    "its meaning, or say how much memory a training needs before it runs.",
)
_ALL = flags.DEFINE_bool(
    "all", False, "With --mode=summary: all models, at the sizes used in the paper."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Join a job of several processes: that of --coordinator, --num_processes and "
    "--process_id, or of JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and "
    "JAX_PROCESS_ID, or the one that SLURM, MPI, a Kubernetes JobSet or a TPU pod has "
    "started.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT where process 0 waits for the others."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Number of processes in the job.", lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Number of this process, from 0.", lower_bound=0
)
_LOCAL_DEVICES = flags.DEFINE_string(
    "local_devices",
    None,
    "Accelerators of this machine that this process uses, such as 0,1; default: all, "
    "or its share where several processes of a job run on a machine.",
)
_JOIN_WITHIN = flags.DEFINE_float(
    "join_within",
    joining.WITHIN,
    "Seconds that the processes of a job wait for each other at the start.",
    lower_bound=1,
)
_LOST_AFTER = flags.DEFINE_float(
    "lost_after",
    joining.LOST_AFTER,
    "Seconds without an answer after which another process is taken for lost, and all "
    "processes of the job end; one that has ended is known at once.",
    lower_bound=5,
)
_LAUNCH = flags.DEFINE_integer(
    "launch",
    None,
    "Start so many processes of this command on this machine, as one job.",
    lower_bound=1,
)

command.define(flags.FLAGS)

logger = logging.getLogger(__name__)

# For programs that run this command with a data set and a model of their own.
build: MakeParts | None = None
_watches: list[peers.Watch | None] = []  # over the other processes of the job, if any


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    mode: str = "train",
    members: int | None = None,
    protocol: str | None = None,
    trace: Trace | None = None,
) -> int:
    """Trains and scores, or only scores.

    Args:
        config: the whole config.
        workdir: where everything is written.
        mode: "train" or "evaluate".
        members: of every forecast that is scored, in place of `config.eval.members`.
        protocol: name of a protocol to score by, in place of `config.data.protocol`.
        trace: of some steps of the training.

    Returns:
        The exit status.

    Raises:
        ConfigError: if the config, the data or the workdir cannot be used.
        CheckpointError: if there is no checkpoint that can be used.
        NonFiniteError: if training diverges.
        TrainingError, OSError: if files cannot be read or written.
    """
    if members is not None:
        with config.unlocked():
            config.eval.members = members
    this = Run(config, workdir, build, protocol)
    if members is not None:
        command.check_scored(this.model, members)
    if mode == "train" and not this.train(trace):
        return STOPPED
    if jax.process_count() > 1:
        interrupts.end_when_asked_again()
    this.evaluate()
    return DONE


def _use_trained(mode: str) -> None:
    """Forecasts with a trained model, or exports it.

    Raises:
        as `run`, and `Stopped` after a signal.
    """
    name = flags.FLAGS.model
    if name is None:
        config, workdir = _choose()
        _prepare(config)
        kept = programs.find() if mode == "forecast" else None
        trained = Run(config, workdir, build, programs=kept).load()
        folder = workdir / "forecasts"
    else:
        takes_config = pathlib.Path(name).suffix.lower() in loading.WEIGHTS
        config = _CONFIG.value if takes_config else None
        if _CONFIG.value is not config or _WORKDIR.value is not None:
            unused = "--workdir" if takes_config else "--config and --workdir"
            raise ConfigError(f"--model={name}: leave out {unused}")
        cache_compilations()
        kept = programs.find() if mode == "forecast" else None
        trained, folder = loading.load(name, config, kept), pathlib.Path()
    if mode == "export":
        command.export(trained, flags.FLAGS)
        return
    command.forecast(trained, folder, flags.FLAGS)


def _compare() -> None:
    """Compares the models of several workdirs.

    Raises:
        ConfigError: if they cannot be compared.
    """
    if _CONFIG.value is not None or _WORKDIR.value is not None:
        raise ConfigError(
            "--mode=compare takes --workdirs=A,B; leave out --config and --workdir"
        )
    from earthformer_jax.run import comparing  # slow, as all that one mode needs

    comparing.compare(flags.FLAGS.workdirs, flags.FLAGS.output)


def _check_job() -> None:
    """Refuses flags of a job where there is none.

    Raises:
        ConfigError: naming them.
    """
    given = [name for name in job.VARIABLES if flags.FLAGS[name].value is not None]
    if _LAUNCH.value is not None and (given or _DISTRIBUTED.value):
        other = f"--{given[0]}" if given else "--distributed"
        raise ConfigError(f"--launch starts all processes here; leave out {other}")
    if given and not _DISTRIBUTED.value:
        raise ConfigError(f"--{given[0]} needs --distributed")
    if (_LAUNCH.value is not None or _DISTRIBUTED.value) and _MODE.value not in _BY_ALL:
        flag = "--distributed" if _DISTRIBUTED.value else "--launch"
        raise ConfigError(
            f"--mode={_MODE.value} uses one process; leave out {flag}, which goes with "
            f"--mode={' or '.join(_BY_ALL)}"
        )


def _join() -> None:
    """Joins the job that the flags or the environment tell of."""
    given = {name: flags.FLAGS[name].value for name in job.VARIABLES}
    found = job.find(given, os.environ, joining.has_tpu())
    _watches.append(joining.join(found, _JOIN_WITHIN.value, _LOST_AFTER.value))


def _plan() -> None:
    """Says what a training needs, on the devices at hand or on described ones.

    Raises:
        ConfigError: if the config, its data or its model cannot be used.
    """
    config, workdir = _choose()
    devices = flags.FLAGS.plan_devices
    if devices is None:
        _prepare(config)
    from earthformer_jax.run.planning import command as planning

    planning.plan(config, workdir, devices, flags.FLAGS.output, build)


def _prepare(config: ml_collections.ConfigDict) -> None:
    """Makes JAX ready, before it looks for devices."""
    if _DISTRIBUTED.value:
        _join()
        if jax.process_index() > 0:
            logging.getLogger("earthformer_jax").setLevel(logging.WARNING)
    cache_compilations()
    if not _DISTRIBUTED.value:
        batches = [config.train.micro_batch, config.eval.batch_size]
        cpu.use_cores(batches, config.parallel.space, config.parallel.model)


def _default_workdir(config_file: str) -> pathlib.Path:
    """runs/enso-quick for configs/enso.py:quick."""
    file, _, variant = config_file.partition(":")
    name = pathlib.Path(file).stem
    return pathlib.Path("runs", "-".join([name, *filter(None, variant.split(","))]))


def _choose() -> tuple[ml_collections.ConfigDict, pathlib.Path]:
    """Config and workdir from the flags; either can be derived from the other."""
    if _CONFIG.value is None:
        if _WORKDIR.value is None:
            raise ConfigError(
                "--config is missing, e.g. --config=configs/enso.py:quick"
            )
        workdir = pathlib.Path(os.path.expanduser(_WORKDIR.value))
        config = workdir_lib.read_config(workdir)
    else:
        file = config_flags.get_config_filename(flags.FLAGS["config"])
        workdir = pathlib.Path(_WORKDIR.value or _default_workdir(file)).expanduser()
        config = _CONFIG.value
    if flags.FLAGS.init_from is not None:
        with config.unlocked():
            config.train.init_from = flags.FLAGS.init_from
    return config, workdir


def _summary() -> str:
    """What --mode=summary prints."""
    if not _ALL.value:
        return summarize(_choose()[0])
    if _CONFIG.value is not None or _WORKDIR.value is not None:
        raise ConfigError(
            "--all uses the sizes of the paper; leave out --config and --workdir"
        )
    from earthformer_jax.profiling import summary

    with as_config_error("--all"):
        return summary.zoo()


def _parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the flags; invalid ones give a one-line error instead of a traceback."""
    try:
        return command_line.parse_flags(argv, flags.FLAGS)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(WRONG_INPUT)


def _show_log() -> None:
    """Shows our own messages with the time, and only warnings of other packages."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    package_logger = logging.getLogger("earthformer_jax")
    package_logger.addHandler(handler)
    package_logger.propagate = False
    verbose = flags.FLAGS.verbosity > 0
    package_logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    if not verbose:
        for other in ("absl", None):  # None: the root of all loggers
            logging.getLogger(other).setLevel(logging.WARNING)


def main(argv: Sequence[str]) -> int:
    """Runs what the flags say; returns the exit status."""
    _show_log()
    try:
        if len(argv) > 1:
            raise ConfigError(f"unexpected arguments: {' '.join(argv[1:])}")
        command.check(flags.FLAGS, _MODE.value)
        _check_job()
        if _LAUNCH.value is not None:
            return launching.launch(_LAUNCH.value)
        if _MODE.value == "summary":
            print(_summary())
            return DONE
        if _ALL.value:
            raise ConfigError("--all needs --mode=summary")
        if _MODE.value == "fields":
            print(list_fields(_choose()[0]))
            return DONE
        if _MODE.value == "compare":
            _compare()
            return DONE
        if _MODE.value in ("forecast", "export"):
            _use_trained(_MODE.value)
            return DONE
        if _MODE.value == "plan":
            _plan()
            return DONE
        asked = flags.FLAGS.profile
        traced = None if asked is None else parse_trace(asked)
        config, workdir = _choose()
        _prepare(config)
        given = flags.FLAGS.members, flags.FLAGS.protocol, traced
        return run(config, workdir, _MODE.value, *given)
    except Stopped:
        print("stopped; the same command begins anew", file=sys.stderr)
        return STOPPED
    except (
        ConfigError,
        CheckpointError,
        NonFiniteError,
        TrainingError,
        OSError,
    ) as error:
        _await_verdicts()
        logger.debug("where it happened", exc_info=True)  # --verbosity=1
        print(f"error: {error}", file=sys.stderr)
        status = DIVERGED if isinstance(error, NonFiniteError) else WRONG_INPUT
        _leave(status, f"error: {error}")
        return status


def _leave(status: int, why: str = "") -> None:
    """Says goodbye to the other processes of the job; after an error, ends this one."""
    while _watches:
        if (watch := _watches.pop()) is not None:
            watch.leave(status, why)
        if status:  # JAX would wait for the others
            interrupts.end_now(status)


def _main(argv: Sequence[str]) -> int:
    """As `main`; does not wait for a compilation that was given up."""
    try:
        status = main(argv)
    except Exception as error:
        if _watches:
            _end_by(error)
        raise
    _leave(status)
    if status == STOPPED:
        interrupts.end_now(status)
    return status


def _await_verdicts() -> None:
    """Ends this process if an error follows from the end of another one.

    Computations over all devices, saves among them, fail where a process is lost.
    """
    for watch in filter(None, _watches):
        watch.verdict()


def _end_by(error: Exception) -> None:
    """Ends this process of a job by an error that nothing else has caught."""
    _await_verdicts()
    traceback.print_exception(error)
    _leave(DIVERGED, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")


if __name__ == "__main__":
    jax.config.config_with_absl()
    app.run(_main, flags_parser=_parse_flags)
