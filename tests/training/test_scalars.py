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
