"""The training loop: from a config, a data set and a model to a workdir.

A workdir holds config.json, checkpoints/, metrics.jsonl, speed.jsonl and TensorBoard
events. Run again after an interruption, `train` continues from the last checkpoint and
ends with the same numbers as if it had never been interrupted.
"""

import contextlib
import json
import logging
import math
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from earthformer_jax.data import pipeline
from earthformer_jax.data import state as data_state
from earthformer_jax.data.dataset import Data, Dataset
from earthformer_jax.data.reading.workers import WorkerEndedError
from earthformer_jax.data.source import Batch
from earthformer_jax.metrics.contract import Metric, Scores, is_scalar
from earthformer_jax.metrics.ensembles.validation import CRPS, MembersAndMean
from earthformer_jax.models.contract import Forecaster, Variables, final_teaching
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import evaluation, feed
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training import state as state_lib
from earthformer_jax.training import workdir as workdir_lib
from earthformer_jax.training.checkpoint import Checkpoints, Progress
from earthformer_jax.training.devices.prepared import Prepared, prepare
from earthformer_jax.training.disk.claim import claim
from earthformer_jax.training.monitoring.speed import UNKNOWN, Speed, Work
from earthformer_jax.training.monitoring.trace import Trace
from earthformer_jax.training.monitoring.trackers import Trackers
from earthformer_jax.training.plan import Plan, change_length, planned_steps
from earthformer_jax.training.precision import processor
from earthformer_jax.training.progress import ProgressBar
from earthformer_jax.training.records import Records
from earthformer_jax.training.scalars import ScalarLog
from earthformer_jax.training.settings import Settings, from_config
from earthformer_jax.training.signals import (
    Backlog,
    Stopped,
    StopRequest,
    TrainingError,
)
from earthformer_jax.training.state import TrainState

logger = logging.getLogger(__name__)

TAUGHT_TO_THE_END = (
    "the training ends after %d steps while %s is still given true frames in place of "
    "its own forecasts, with probability %.2g: leave out the options of its sampling "
    "schedule, which then follows the training, or end the schedule earlier"
)


MEAN_ALONE = (
    "the best checkpoint is chosen by %s, which scores the mean of the members and not "
    "their spread; config.train.monitor=crps with monitor_mode=min chooses by both"
)


def train(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    *,
    dataset: Dataset,
    model: Forecaster,
    weights: Variables | None = None,
    work: Work = UNKNOWN,
    trace: Trace | None = None,
) -> bool:
    """Trains a model, or continues to.

    What does not go together is for the caller to refuse (`run.run.Run` does).

    Args:
        config: the whole config, which is kept in the workdir. What its sections
            `optim`, `train` and `eval` leave out has its default
            (`training.settings`).
        workdir: where everything is written; created if needed.
        dataset: data to learn from, and the task with its metric.
        model: forecaster of the examples.
        weights: variables of the model, or some of them, that training begins with if
            there is no checkpoint; the others are new. They are validated and saved
            before the first step, so that the best checkpoint is never worse. None: all
            are new.
        work: of a step, to record how much of it is done in a second.
        trace: of some steps; None: none is traced.

    Returns:
        Whether training is complete. False after SIGTERM, SIGINT (Ctrl-C), SIGHUP or
        SIGUSR1: the same call continues.

    Raises:
        ConfigError: if a setting is impossible, or the workdir cannot be written or is
            in use. Nothing has been written then.
        CheckpointError: if checkpoints cannot be read or written, or belong to another
            model.
        NonFiniteError: if the loss or the state is no longer finite. The last
            checkpoint is a good one.
        TrainingError: if the data cannot be read or the workdir cannot be written any
            more. The message says which step is saved; the same call continues.
    """
    workdir = pathlib.Path(workdir)
    with claim(workdir), StopRequest() as stop:
        try:
            return _train(config, workdir, dataset, model, weights, stop, work, trace)
        except Stopped:
            logger.info("stopped: nothing had to be saved; the same command continues")
            return False
        except _ReadError as error:
            raise TrainingError(
                f"the data cannot be read: {_first_line(error.__cause__)}"
            ) from error.__cause__
        except OSError as error:
            raise TrainingError(
                f"{workdir} cannot be written: {error}; once it can, the same command "
                "continues from the last checkpoint"
            ) from error


def _train(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    dataset: Dataset,
    model: Forecaster,
    weights: Variables | None,
    stop: StopRequest,
    work: Work,
    trace: Trace | None,
) -> bool:
    settings = from_config(config)
    data = dataset.data
    with _reading():
        example = data.example()
    is_first_process = jax.process_index() == 0
    prepared = prepare(settings, dataset, model, example)
    plan, like = prepared.plan, prepared.like
    if not like.params:
        logger.info("%s has no parameters: nothing to train", config.model.name)
        if is_first_process:
            _write_settings(config, data, workdir)
        return True
    checkpoints = Checkpoints(
        workdir / "checkpoints", json.loads(workdir_lib.to_json(config))
    )
    restored = checkpoints.restore_latest(like)

    _describe(config, data, like.params, example, prepared.mesh)
    _describe_precision(settings, prepared.mesh.devices.flat[0])
    if restored is None:
        state, progress = _begin(prepared, weights, stop), Progress()
    else:
        state, progress = restored
        logger.info("continuing after step %d", progress.step)
        before = planned_steps(checkpoints.config(progress.step), len(data.train))
        if before is not None and before != plan.total_steps > progress.step:
            change_length(progress, plan, before, prepared.learning_rate)
    complete = plan.is_complete(progress) and not progress.validation_due
    if complete:
        logger.info("training is complete already")
        return True
    if trace is not None:
        trace.check(progress.step, plan.total_steps)
    _warn(config, model, prepared.metric, plan)

    if is_first_process:
        _write_settings(config, data, workdir)
    batches = _train_batches(settings, data)
    if progress.batches is not None:
        batches.set_state(progress.batches)
    trackers = None
    if is_first_process and settings.train.trackers:
        plain = json.loads(workdir_lib.to_json(config))
        trackers = Trackers(settings.train.trackers, workdir, plain, progress.step)
    with (
        contextlib.closing(batches),
        checkpoints,
        trace or contextlib.nullcontext(),
        Records(workdir, progress.step, is_first_process, trackers) as records,
        ProgressBar(progress.step, plan.total_steps, shows=is_first_process) as bar,
    ):
        return _Training(
            plan=plan,
            state=state,
            progress=progress,
            take_step=prepared.program.take_step,
            batches=feed.device_batches(batches, prepared.program.put),
            score=evaluation.make_scorer(model, prepared.metric, prepared.mesh),
            validation=_validation_batches(settings, data),
            checkpoints=checkpoints,
            records=records,
            bar=bar,
            stop=stop,
            begins_trained=restored is None and weights is not None,
            speed=Speed(settings.train.batch_size, progress.step, work),
            trace=trace if is_first_process else None,
            workdir=workdir,
        ).run()


def _begin(
    prepared: Prepared, weights: Variables | None, stop: StopRequest
) -> TrainState:
    """The state before the first step, on the devices."""
    stop.wait(prepared.create.lower(prepared.key).compile)
    state = prepared.create(prepared.key)
    if weights is not None:
        everywhere = jax.device_put(weights, prepared.layout.step)
        state = jax.device_put(state_lib.begin_with(state, everywhere), prepared.layout)
    return state


class _ReadError(Exception):
    """Wraps whatever the data set raises, to tell it from other errors."""


class _Training:
    """A training under way: its state, and everything that a step has to do with."""

    def __init__(
        self,
        *,
        plan: Plan,
        state: TrainState,
        progress: Progress,
        take_step: Any,
        batches: Iterator[tuple[dict[str, jax.Array], Any]],
        score: Callable[..., Scores],
        validation: Iterable[Batch],
        checkpoints: Checkpoints,
        records: Records,
        bar: ProgressBar,
        stop: StopRequest,
        begins_trained: bool,
        speed: Speed,
        trace: Trace | None,
        workdir: pathlib.Path,
    ):
        self._plan, self._state, self._progress = plan, state, progress
        self._take_step, self._batches = take_step, batches
        self._score, self._validation = score, validation
        self._checkpoints, self._records, self._bar = checkpoints, records, bar
        self._stop, self._begins_trained = stop, begins_trained
        self._speed, self._trace, self._workdir = speed, trace, workdir
        self._log = ScalarLog(records, bar, progress.unlogged, speed)
        self._last: jax.Array | None = None  # loss of the last step
        self._backlog = Backlog()
        self._saved_step = progress.step
        self._is_compiled = False

    def run(self) -> bool:
        """Trains until everything is done, or until a stop is asked for.

        Returns:
            Whether training is complete and no stop was asked for.
        """
        progress, is_complete, stops = self._progress, False, False
        try:
            if self._begins_trained:  # the best may be what training begins with
                self._validate()
                self._save()
            while not (is_complete or stops):
                if not progress.validation_due:
                    self._step()
                if self._plan.validates(progress.step):
                    self._validate()
                is_complete = self._plan.is_complete(progress)
                stops = self._stop.asked(progress.step)
                if self._plan.saves(progress) or is_complete or stops:
                    self._save()
        except Stopped:
            self._save_if_needed()
            is_complete, stops = False, True
        except _ReadError as error:
            if jax.process_count() == 1:  # the others would have to save as well
                self._save_if_needed()
            raise TrainingError(
                f"the data cannot be read: {_first_line(error.__cause__)}; "
                f"{self._where_it_continues()}"
            ) from error.__cause__
        if is_complete:
            logger.info("training is complete after step %d", progress.step)
            if progress.best_step is None:
                logger.warning(
                    "no validation had a finite %s: there is no best checkpoint, and "
                    "the last one is scored instead",
                    self._plan.monitor,
                )
        if stops:
            logger.info("stopped: %s", self._where_it_continues())
        return is_complete and not stops

    def _step(self) -> None:
        with _reading(), self._stop.waiting(), self._speed.waiting(self._last):
            following = next(self._batches)
        batch, position = following
        if not self._is_compiled:
            with self._speed.paused():
                self._compile(batch)
        if self._trace is not None:
            self._trace.before(self._progress.step + 1, self._workdir)
        self._progress.batches = position
        self._state, scalars = self._take_step(self._state, batch)
        self._progress.step += 1
        self._last = loss = scalars["loss"]
        if self._trace is not None:
            self._trace.after(self._progress.step, loss)
        self._backlog.add(loss)
        self._log.add(self._progress.step, scalars)
        if self._plan.logs(self._progress.step):
            self._log.end_interval()

    def _compile(self, batch: dict[str, jax.Array]) -> None:
        """Compiles the step before it is taken; nothing is lost if that is stopped."""
        self._bar.say("compiling the training step ...")
        start = time.monotonic()
        program = self._stop.wait(self._take_step.lower(self._state, batch).compile)
        _check_memory(mesh_lib.program_bytes(program))
        self._bar.say(f"compiled the training step in {time.monotonic() - start:.1f} s")
        self._is_compiled = True

    def _validate(self) -> None:
        progress = self._progress
        self._log.catch_up()
        progress.validation_due = True
        with self._speed.paused():
            scores = self._score(
                self._state.variables, _read_from(self._validation), self._stop.wait
            )
        progress.validation_due = False
        self._plan.judge(progress, scores)
        self._records.write(progress.step, "validation", scores)
        self._bar.say(_validation_line(progress, scores))
        monitored = float(np.asarray(scores[self._plan.monitor]))
        if not math.isfinite(monitored):
            logger.warning(
                "the validation after step %d has %s=%s, so that it cannot be the best",
                progress.step,
                self._plan.monitor,
                monitored,
            )

    def _save(self) -> None:
        self._progress.unlogged = self._log.catch_up()
        with self._speed.paused():
            self._records.flush()
            self._checkpoints.save(self._state, self._progress)
        self._saved_step = self._progress.step

    def _save_if_needed(self) -> None:
        if self._progress.step > self._saved_step:
            self._save()

    def _where_it_continues(self) -> str:
        if not self._saved_step:
            return "nothing had to be saved; the same command continues"
        return f"step {self._saved_step} is saved, and the same command continues"


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Marks errors of the data set, which can be of any type."""
    try:
        yield
    except Stopped:
        raise
    except Exception as error:
        raise _ReadError from error


def _read_from(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same batches; whatever reading them raises becomes a `_ReadError`."""
    with _reading():
        iterator = iter(batches)
    while True:
        with _reading():
            batch = next(iterator, None)
        if batch is None:
            return
        yield batch


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines() or [""]
    kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
    hint = ""
    if isinstance(error, WorkerEndedError):
        hint = " (out of memory? try a smaller config.train.num_workers)"
    return f"{kind}{lines[0]}{hint}"


def _check_memory(needed: int) -> None:
    """Refuses a training step that needs more memory than there is.

    Raises:
        ConfigError: with both.
    """
    available = mesh_lib.device_bytes()
    if needed > available:
        raise ConfigError(
            f"the training step needs {mesh_lib.size_text(needed)} of memory, but "
            f"there are {mesh_lib.size_text(available)}. Please lower "
            "config.train.micro_batch, in another --workdir"
        )


def _write_settings(
    config: ml_collections.ConfigDict, data: Data, workdir: pathlib.Path
) -> None:
    """Keeps the config, and once what the model must know of its data."""
    workdir_lib.write_config(config, workdir)
    if data.state is not None and not (workdir / data_state.FILE).exists():
        data.state().write(workdir)


def _train_batches(settings: Settings, data: Data):
    return pipeline.train_batches(
        data,
        batch_size=settings.train.batch_size,
        seed=settings.seed,
        simulated_batches=settings.train.simulated_steps,
        simulated_fraction=settings.train.simulated_fraction,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_threads=settings.train.num_threads,
        num_workers=settings.train.num_workers,
    )


def _validation_batches(settings: Settings, data: Data):
    return pipeline.evaluation_batches(
        data.validation,
        settings.eval.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_threads=settings.train.num_threads,
    )


def _warn(config, model: Forecaster, metric: Metric, plan: Plan) -> None:
    """Says what the end of the training may disappoint by."""
    if isinstance(metric, MembersAndMean) and plan.monitor != CRPS:
        logger.warning(MEAN_ALONE, plan.monitor)
    if (share := final_teaching(model, plan.total_steps)) > 0:
        logger.warning(TAUGHT_TO_THE_END, plan.total_steps, config.model.name, share)


def _describe(config, data, params, example, mesh) -> None:
    """Says which data, model and devices are used."""
    logger.info("data: %s", data.description)
    logger.info(
        "model: %s, %s parameters, %s -> %s",
        config.model.name,
        f"{state_lib.count_parameters(params):,}",
        example["inputs"].shape,
        example["targets"].shape,
    )
    logger.info("devices: %d x %s", mesh.size, mesh.devices.flat[0].device_kind)


def _describe_precision(settings: Settings, device) -> None:
    """Says in which types numbers are, and what the device makes of that."""
    logger.info("precision: %s", settings.precision.describe())
    compute = settings.precision.compute
    for remark in processor.remarks(compute, device, device.device_kind):
        logger.warning("%s", remark)


def _validation_line(progress: Progress, scores: Scores) -> str:
    values = "  ".join(
        f"{name} {value:.4g}" for name, value in scores.items() if is_scalar(value)
    )
    best = "  (best)" if progress.best_step == progress.step else ""
    return f"step {progress.step}  validation: {values}{best}"
