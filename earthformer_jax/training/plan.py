"""When a training logs, validates, saves and ends."""

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from earthformer_jax.settings import ConfigError
from earthformer_jax.training.checkpoint import Progress
from earthformer_jax.training.settings import TrainSettings, from_config
from earthformer_jax.training.setup.monitor import default_monitor

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Intervals in optimiser steps, and the rule of early stopping.

    Attributes:
        total_steps: length of the training.
        log_every: steps whose scalars are averaged into one record.
        validate_every: steps between validations; there is one at the end, too.
        checkpoint_every: steps between checkpoints besides the best ones; 0 saves at
            validations.
        monitor: validation score that decides which checkpoint is the best.
        highest_is_best: whether a large score is good.
        patience: validations without improvement before training stops; 0: never.
        patient_until: step from which such validations count.
    """

    total_steps: int
    log_every: int
    validate_every: int
    checkpoint_every: int
    monitor: str
    highest_is_best: bool
    patience: int
    patient_until: int

    def logs(self, step: int) -> bool:
        """Whether an interval of the log ends with this step."""
        return step % self.log_every == 0 or step == self.total_steps

    def validates(self, step: int) -> bool:
        """Whether to validate after this step."""
        return step % self.validate_every == 0 or step == self.total_steps

    def saves(self, progress: Progress) -> bool:
        """Whether to save after this step; the last one is saved in any case."""
        if self.checkpoint_every == 0:
            return self.validates(progress.step)
        is_best = progress.best_step == progress.step
        return is_best or progress.step % self.checkpoint_every == 0

    def is_complete(self, progress: Progress) -> bool:
        """Whether all steps are done or patience is over."""
        is_hopeless = 0 < self.patience <= progress.validations_since_best
        return is_hopeless or progress.step >= self.total_steps

    def judge(self, progress: Progress, scores: Mapping[str, Any]) -> None:
        """Notes in `progress` whether a validation is the best so far."""
        score = float(scores[self.monitor])
        if self._is_better(score, progress.best_score):
            progress.best_score, progress.best_step = score, progress.step
            progress.validations_since_best = 0
        elif progress.step > self.patient_until:
            progress.validations_since_best += 1

    def _is_better(self, score: float, best: float | None) -> bool:
        if not math.isfinite(score):
            return False
        if best is None:
            return True
        return score > best if self.highest_is_best else score < best


def make_plan(train: TrainSettings, examples: int, monitor: str = "") -> Plan:
    """The plan of a training.

    Args:
        train: settings of the training. Its `epochs` are passes through the training
            split, to which steps on simulated examples are added; `steps` counts
            everything.
        examples: size of the training split.
        monitor: validation score that selects the best checkpoint; empty: that of the
            settings.
    """
    epochs = max(int(train.epochs * examples / train.batch_size), 1)
    return Plan(
        total_steps=train.steps or train.simulated_steps + epochs,
        log_every=train.log_every,
        validate_every=train.validate_every or max(examples // train.batch_size, 1),
        checkpoint_every=train.checkpoint_every,
        monitor=monitor or train.monitor or default_monitor(),
        highest_is_best=train.monitor_mode == "max",
        patience=train.early_stop_patience,
        patient_until=train.simulated_steps,
    )


def planned_steps(config: Mapping[str, Any] | None, examples: int) -> int | None:
    """Length of the training of a config; None if it is not known.

    Args:
        config: that a checkpoint was saved with.
        examples: size of the training split.
    """
    if config is None:
        return None
    try:
        return make_plan(from_config(config).train, examples).total_steps
    except ConfigError:  # of another version
        return None


def change_length(
    progress: Progress, plan: Plan, before: int, learning_rate: Callable[[int], Any]
) -> None:
    """Says that a training goes on with a schedule of another length.

    Who makes an ended training longer does not want it to end at once: the validations
    without improvement count from the beginning again.

    Args:
        progress: of the training; changed in this respect.
        plan: from here on.
        before: number of steps planned until here.
        learning_rate: of a step, from here on.
    """
    logger.info(
        "the training has %d steps in all, and not %d as before: the learning rate is "
        "that of the new schedule from here on, %.3g at first",
        plan.total_steps,
        before,
        float(learning_rate(progress.step)),
    )
    if 0 < plan.patience <= progress.validations_since_best:
        logger.info(
            "it had ended after %d validations without improvement; these count from "
            "the beginning again",
            progress.validations_since_best,
        )
        progress.validations_since_best = 0
