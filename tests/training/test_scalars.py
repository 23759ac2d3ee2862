"""Scalars are averaged over intervals and read one interval late."""

import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.training.scalars import NonFiniteError, ScalarLog


class Recorder:
    """Stands for the record and the progress bar."""

    def __init__(self):
        self.written = []

    def write(self, step, prefix, scores):
        self.written.append((step, scores["loss"]))

    def update(self, step, scores):
        assert self.written[-1][0] == step


class OnDevice:
    """A number that notes when it is read."""

    def __init__(self, value, read):
        self.value, self.read = value, read

    def __array__(self, dtype=None, copy=None):
        self.read.append(self.value)
        return np.asarray(self.value, dtype)


def make(unlogged=()):
    recorder = Recorder()
    return ScalarLog(recorder, recorder, list(unlogged)), recorder


def scalars(loss, **others):
    return {"loss": loss, "grad_norm": 1.0, "lr": 0.1} | others


def test_an_interval_is_read_when_the_next_one_has_been_dispatched():
    log, recorder = make()
    read = []
    for step in range(1, 7):
        log.add(step, scalars(OnDevice(float(step), read)))
        if step % 2 == 0:
            log.end_interval()
        assert all(value <= step - 2 for value in read)
    assert recorder.written == [(2, 1.5), (4, 3.5)]
    log.catch_up()
    assert recorder.written[-1] == (6, 5.5)


def test_an_interval_survives_a_restart():
    log, recorder = make()
    for step in (1, 2):
        log.add(step, scalars(jnp.float32(step / 3)))
    rows = log.catch_up()
    assert [row["step"] for row in rows] == [1, 2]
    continued, recorder_of_continued = make(rows)
    for one in (log, continued):
        one.add(3, scalars(jnp.float32(1.0)))
        one.end_interval()
        one.catch_up()
    assert recorder.written == recorder_of_continued.written
    assert recorder.written[0][0] == 3


def test_a_state_that_is_not_finite_stops():
    log, _ = make()
    log.add(1, scalars(1.0, is_finite=np.True_))
    log.add(2, scalars(1.0, is_finite=np.False_))
    with pytest.raises(
        NonFiniteError, match="state are not finite, at step 2 "
    ) as error:
        log.catch_up()
    assert "optim.lr" in str(error.value) and "another --workdir" in str(error.value)


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stops(name, value):
    log, _ = make()
    log.add(1, scalars(1.0))
    log.add(2, scalars(1.0) | {name: value})
    with pytest.raises(NonFiniteError, match="at step 2 .*optim.lr"):
        log.catch_up()


def test_skipped_steps_count_nothing_but_themselves():
    log, recorder = make()
    recorder.write = lambda step, prefix, scores: recorder.written.append(scores)
    recorder.update = lambda step, scores: None
    for step, loss in enumerate((1.0, np.inf, 3.0)):
        skipped = np.bool_(loss == np.inf)
        log.add(step, scalars(loss, skipped=skipped, loss_scale=8.0, is_finite=True))
    rows = log.catch_up()
    assert "loss" not in rows[1] and rows[1]["skipped"] == 1
    continued = ScalarLog(recorder, recorder, rows)
    continued.end_interval()
    continued.add(3, scalars(np.nan, skipped=True, loss_scale=4.0))
    continued.end_interval()
    continued.catch_up()
    assert recorder.written == [
        {"loss": 2.0, "grad_norm": 1.0, "lr": 0.1, "loss_scale": 8.0, "skipped": 1.0},
        {"lr": 0.1, "loss_scale": 4.0, "skipped": 1.0},
    ]


def test_an_overflow_that_no_scale_prevents_stops():
    log, _ = make()
    log.add(7, scalars(np.inf, skipped=True, loss_scale=1.0, is_finite=False))
    with pytest.raises(NonFiniteError, match="loss scaled by 1 only, at step 7"):
        log.catch_up()
