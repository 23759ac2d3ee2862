"""When things happen, and which validation is the best."""

import logging

import numpy as np
import pytest

from earthformer_jax.training.checkpoint import Progress
from earthformer_jax.training.plan import change_length, make_plan, planned_steps
from earthformer_jax.training.settings import TrainSettings


def plan(examples=100, **changes):
    train = dict(batch_size=10, early_stop_patience=0, log_every=4) | changes
    return make_plan(TrainSettings(**train), examples)


class TestSteps:
    def test_from_epochs(self):
        assert plan(epochs=3.0).total_steps == 30
        assert plan(epochs=0.55).total_steps == 5
        assert plan(epochs=0.01).total_steps == 1

    def test_simulated_steps_come_on_top_of_epochs(self):
        assert plan(epochs=3.0, simulated_steps=7).total_steps == 37

    def test_steps_override_epochs(self):
        assert plan(epochs=3.0, steps=4, simulated_steps=2).total_steps == 4

    def test_validates_once_an_epoch_and_at_the_end(self):
        p = plan(epochs=2.5)
        assert [s for s in range(1, 26) if p.validates(s)] == [10, 20, 25]

    def test_epochs_smaller_than_a_batch(self):
        assert plan(examples=3, epochs=10.0).validate_every == 1

    def test_logs_at_the_end(self):
        p = plan(steps=10, log_every=4)
        assert [s for s in range(1, 11) if p.logs(s)] == [4, 8, 10]

    @pytest.mark.parametrize("every, expected", [(0, [4, 8, 10]), (3, [3, 4, 6, 9])])
    def test_saves(self, every, expected):
        p = plan(steps=10, validate_every=4, checkpoint_every=every)
        progress = Progress(best_step=4)
        saved = []
        for progress.step in range(1, 11):
            saved += [progress.step] if p.saves(progress) else []
        assert saved == expected


class TestJudge:
    def run(self, p, scores):
        progress = Progress()
        for progress.step, score in enumerate(scores, start=1):
            p.judge(progress, {"mse": score})
        return progress

    def test_smallest(self):
        progress = self.run(plan(), [3.0, 1.0, 2.0, 1.0])
        assert (progress.best_step, progress.best_score) == (2, 1.0)
        assert progress.validations_since_best == 2

    def test_largest(self):
        assert self.run(plan(monitor_mode="max"), [3.0, 4.0, 2.0]).best_step == 2

    @pytest.mark.parametrize("mode", ["min", "max"])
    def test_what_is_not_finite_is_never_the_best(self, mode):
        scores = [np.nan, 1.0, np.nan, np.inf, -np.inf]
        assert self.run(plan(monitor_mode=mode), scores).best_step == 2
        assert self.run(plan(monitor_mode=mode), [np.nan]).best_step is None

    def test_patience(self):
        p = plan(early_stop_patience=2)
        assert not p.is_complete(self.run(p, [1.0, 2.0]))
        assert p.is_complete(self.run(p, [1.0, 2.0, 2.0]))
        p = plan(early_stop_patience=0)
        assert not p.is_complete(self.run(p, [1.0, 2.0, 2.0]))

    def test_patience_starts_when_simulated_examples_end(self):
        p = plan(early_stop_patience=2, simulated_steps=3)
        assert not p.is_complete(self.run(p, [1.0, 2.0, 2.0, 2.0]))
        assert p.is_complete(self.run(p, [1.0, 2.0, 2.0, 2.0, 2.0]))


class TestAnotherLength:
    def test_patience_begins_anew(self, caplog):
        """A training that had ended early goes on, and may end early again."""
        caplog.set_level(logging.INFO)
        longer = plan(steps=20, early_stop_patience=2)
        progress = Progress(step=8, best_step=4, validations_since_best=2)
        assert longer.is_complete(progress)
        change_length(progress, longer, 10, lambda step: 0.5 * step)
        assert not longer.is_complete(progress)
        first, second = caplog.messages
        assert "has 20 steps in all, and not 10" in first and "4 at first" in first
        assert "ended after 2 validations without improvement" in second

    def test_patience_that_lasts(self, caplog):
        caplog.set_level(logging.INFO)
        progress = Progress(step=8, best_step=6, validations_since_best=1)
        change_length(progress, plan(steps=20, early_stop_patience=2), 10, float)
        assert progress.validations_since_best == 1 and len(caplog.messages) == 1

    @pytest.mark.parametrize(
        ("config", "steps"),
        [
            ({"train": {"steps": 7}}, 7),
            ({"train": {"epochs": 2.0, "batch_size": 16}}, 12),
            ({"train": {"steps": 7, "of_an_earlier_version": 1}}, None),
            (None, None),
        ],
    )
    def test_planned_before(self, config, steps):
        assert planned_steps(config, 100) == steps
