"""The training loop: from a config, a data set and a model to a workdir.

A workdir holds config.json, checkpoints/, metrics.jsonl and TensorBoard events. Run
again after an interruption, `train` continues from the last checkpoint and ends with
the same numbers as if it had never been interrupted.
"""

import contextlib
import functools
import itertools
import logging
import pathlib
import time
from collections.abc import Callable

import jax
import ml_collections
import numpy as np

from earthformer_jax.data import pipeline
from earthformer_jax.data import state as data_state
from earthformer_jax.data.dataset import Data, Dataset
from earthformer_jax.metrics.contract import Scores, is_scalar
from earthformer_jax.models.contract import Forecaster, final_teaching
from earthformer_jax.training import evaluation, feed
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training import settings as settings_lib
from earthformer_jax.training import state as state_lib
from earthformer_jax.training import step as step_lib
from earthformer_jax.training import workdir as workdir_lib
from earthformer_jax.training.checkpoint import Checkpoints, Progress
from earthformer_jax.training.optimizer import make_optimizer
from earthformer_jax.training.plan import make_plan
from earthformer_jax.training.progress import ProgressBar
from earthformer_jax.training.records import Records
from earthformer_jax.training.scalars import ScalarLog
from earthformer_jax.training.settings import Settings
from earthformer_jax.training.signals import StopRequest

logger = logging.getLogger(__name__)

TAUGHT_TO_THE_END = (
    "the training ends after %d steps while %s is still given true frames in place of "
    "its own forecasts, with probability %.2g: leave out the options of its sampling "
    "schedule, which then follows the training, or end the schedule earlier"
)


def train(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    *,
    dataset: Dataset,
    model: Forecaster,
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

    Returns:
        Whether training is complete. False after SIGTERM or Ctrl-C: the same call
        continues.

    Raises:
        ConfigError: if a setting is impossible. Nothing has been written then.
        CheckpointError: if checkpoints cannot be read, or belong to another model.
        NonFiniteError: if the loss is no longer finite. The last checkpoint is a good
            one.
    """
    workdir = pathlib.Path(workdir)
    mesh = mesh_lib.data_mesh()
    everywhere = mesh_lib.replicated(mesh)
    settings = settings_lib.from_config(config)
    data = dataset.data
    example = data.example()
    is_first_process = jax.process_index() == 0

    plan = make_plan(settings.train, len(data.train))
    tx, learning_rate = make_optimizer(settings.optim, plan.total_steps)
    init = functools.partial(
        state_lib.create_state,
        model=model,
        tx=tx,
        input_shape=example["inputs"].shape,
        ema=settings.optim.ema_decay > 0,
    )
    rng = jax.random.key(settings.seed)
    like = mesh_lib.abstract(jax.eval_shape(init, rng), everywhere)
    if not like.params:
        logger.info("%s has no parameters: nothing to train", config.model.name)
        if is_first_process:
            _write_settings(config, data, workdir)
        return True
    checkpoints = Checkpoints(workdir / "checkpoints")
    restored = checkpoints.restore_latest(like)

    _describe(config, data, like.params, example, mesh)
    if restored is None:
        state, progress = jax.jit(init, out_shardings=everywhere)(rng), Progress()
    else:
        state, progress = restored
        logger.info("continuing after step %d", progress.step)
    complete = plan.is_complete(progress)
    if not complete and (share := final_teaching(model, plan.total_steps)) > 0:
        logger.warning(TAUGHT_TO_THE_END, plan.total_steps, config.model.name, share)
    if complete:
        logger.info("training is complete already")
        return True

    if is_first_process:
        _write_settings(config, data, workdir)
    batches = _train_batches(settings, data)
    if progress.batches is not None:
        batches.set_state(progress.batches)
    take_step = jax.jit(
        functools.partial(
            step_lib.update,
            model=model,
            tx=tx,
            learning_rate=learning_rate,
            loss_weights=np.asarray(data.loss_weights, np.float32),
            micro_batches=settings.train.batch_size // settings.train.micro_batch,
            ema_decay=settings.optim.ema_decay,
            total_steps=plan.total_steps,
        ),
        donate_argnums=0,
        out_shardings=everywhere,
    )
    score = evaluation.make_scorer(model, dataset.task.metric, mesh)

    with (
        contextlib.closing(batches),
        StopRequest() as stop,
        checkpoints,
        Records(workdir, progress.step, writes=is_first_process) as records,
        ProgressBar(progress.step, plan.total_steps, shows=is_first_process) as bar,
    ):
        log = ScalarLog(records, bar, progress.unlogged)
        take_step = _announced(take_step, bar.say)
        on_devices = feed.device_batches(batches, mesh)
        stops = False
        while not stops:
            batch, progress.batches = next(on_devices)
            state, scalars = take_step(state, batch)
            progress.step += 1
            log.add(progress.step, scalars)
            if plan.logs(progress.step):
                log.end_interval()

            if plan.validates(progress.step):
                log.catch_up()
                scores = score(state.variables, _validation_batches(settings, data))
                plan.judge(progress, scores)
                records.write(progress.step, "validation", scores)
                bar.say(_validation_line(progress, scores))

            complete = plan.is_complete(progress)
            stops = stop.asked(progress.step) or complete
            if plan.saves(progress) or stops:
                progress.unlogged = log.catch_up()
                records.flush()
                checkpoints.save(state, progress)
    if complete:
        logger.info("training is complete after step %d", progress.step)
    else:
        logger.info("stopped after step %d; run again to continue", progress.step)
    return complete


def _announced(take_step: Callable, say: Callable[[str], None]) -> Callable:
    """The training step; its first call says that it is compiled, and how long."""
    calls = itertools.count()

    def take(*arguments):
        if next(calls):
            return take_step(*arguments)
        say("compiling the training step ...")
        start = time.monotonic()
        result = take_step(*arguments)
        say(f"compiled the training step in {time.monotonic() - start:.1f} s")
        return result

    return take


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


def _validation_line(progress: Progress, scores: Scores) -> str:
    values = "  ".join(
        f"{name} {value:.4g}" for name, value in scores.items() if is_scalar(value)
    )
    best = "  (best)" if progress.best_step == progress.step else ""
    return f"step {progress.step}  validation: {values}{best}"
