"""The training loop on a toy: what it writes, rejects, waits for and compiles."""

import dataclasses
import json
import logging
import os
import re
import shutil
import signal
import warnings

import jax
import jax.monitoring
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
import pytest

from earthformer_jax.data import pipeline
from earthformer_jax.data.reading.workers import WorkerEndedError, WorkerError
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import loop, scalars
from earthformer_jax.training.checkpoint import Checkpoints
from earthformer_jax.training.disk.claim import claim
from earthformer_jax.training.monitoring import trace
from earthformer_jax.training.monitoring.speed import Work
from earthformer_jax.training.scalars import NonFiniteError
from tests.training import toy


def train(workdir, *, dataset=None, model=None, **changes):
    defaults = dict(train__micro_batch=8)
    return loop.train(
        toy.config(**(defaults | changes)),
        workdir,
        dataset=dataset or toy.dataset(),
        model=model or toy.ToyModel(),
    )


@pytest.mark.slow
def test_steps_are_traced_and_their_work_is_recorded(tmp_path):
    assert loop.train(
        toy.config(train__micro_batch=8, train__steps=6),
        tmp_path,
        dataset=toy.dataset(),
        model=toy.ToyModel(),
        work=Work(flops=1e6, peak=1e12),
        trace=trace.parse("5:6"),
    )
    assert [*(tmp_path / trace.FOLDER).rglob("perfetto_trace.json.gz")]
    (*_, last) = (tmp_path / "speed.jsonl").read_text().splitlines()
    row = json.loads(last)
    assert row["speed/flops_per_s"] == 1e6 * row["speed/steps_per_s"]
    assert row["speed/mfu"] == pytest.approx(row["speed/flops_per_s"] / 1e12)


def test_steps_that_are_not_taken_cannot_be_traced(tmp_path):
    with pytest.raises(ConfigError, match="--profile=5:9: .* from step 1 to 6"):
        loop.train(
            toy.config(train__steps=6),
            tmp_path / "w",
            dataset=toy.dataset(),
            model=toy.ToyModel(),
            trace=trace.parse("5:9"),
        )
    assert not (tmp_path / "w" / "config.json").exists()


def metrics(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def final_state(workdir):
    """The state in the last checkpoint, as it lies on disk."""
    checkpoints = Checkpoints(workdir / "checkpoints")
    path = checkpoints.path(checkpoints.steps()[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Orbax: the sharding is not given
        state = ocp.load_checkpointables(path)["state"]
    return state | {"rng": jax.random.key_data(state["rng"])}


def assert_same_run(one, other):
    a, b = ((w / "metrics.jsonl").read_bytes() for w in (one, other))
    assert a == b
    found, expected = final_state(one), final_state(other)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The workdir of a training that was never interrupted (35 steps)."""
    workdir = tmp_path_factory.mktemp("whole")
    assert train(workdir)
    return workdir


class TestWorkdir:
    def test_records(self, whole):
        lines = metrics(whole)
        steps = [line["step"] for line in lines if "train/loss" in line]
        assert steps == [4, 8, 12, 16, 20, 24, 28, 32, 35]
        validations = [line for line in lines if "validation/mse" in line]
        assert [line["step"] for line in validations] == [7, 14, 21, 28, 35]
        assert (
            validations[-1]["validation/mse"] < 0.7 * validations[0]["validation/mse"]
        )
        assert not any("time" in name for line in lines for name in line)

    def test_speed_is_recorded_apart(self, whole):
        lines = (whole / "speed.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        steps = [line["step"] for line in metrics(whole) if "train/loss" in line]
        assert [row["step"] for row in rows] == steps
        for row in rows:
            assert row["speed/samples_per_s"] == 8 * row["speed/steps_per_s"] > 0
            assert 0 <= row["speed/data_wait"] <= 1
            assert row["speed/host_memory_mib"] > 0
            assert "speed/mfu" not in row

    def test_config_is_kept(self, whole):
        saved = json.loads((whole / "config.json").read_text())
        assert saved["optim"]["lr"] == 1e-2

    def test_a_complete_training_is_left_as_it_is(self, whole, caplog):
        before = {p: p.stat().st_mtime_ns for p in whole.rglob("*")}
        with caplog.at_level(logging.INFO, "earthformer_jax"):
            assert train(whole)
        assert "complete already" in caplog.text
        assert before == {p: p.stat().st_mtime_ns for p in whole.rglob("*")}

    def test_says_which_data_model_and_devices_are_used(self, tmp_path, caplog):
        with caplog.at_level(logging.INFO, "earthformer_jax"):
            train(tmp_path, train__steps=5)
        assert "data: toy examples, 48 / 10 / 4" in caplog.text
        assert "model: toy, 840 parameters" in caplog.text
        assert "devices: 4 x " in caplog.text
        assert "ETA" in caplog.text or "step 4/5" in caplog.text

    def test_says_once_that_the_step_is_compiled(self, tmp_path, caplog):
        with caplog.at_level(logging.INFO, "earthformer_jax"):
            train(tmp_path, train__steps=5)
        said = [m for m in caplog.messages if m.startswith("compil")]
        assert said[0] == "compiling the training step ..."
        assert re.fullmatch(r"compiled the training step in \d+\.\d s", said[1])
        assert len(said) == 2

    def test_the_checkpoint_of_the_best_validation_is_kept(self, tmp_path):
        train(
            tmp_path,
            train__steps=12,
            train__validate_every=2,
            train__monitor_mode="max",  # the first validations have the largest error
            train__simulated_steps=0,
        )
        validations = [m for m in metrics(tmp_path) if "validation/mse" in m]
        worst = max(validations, key=lambda m: m["validation/mse"])["step"]
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        assert checkpoints.progress(12).best_step == worst
        assert checkpoints.steps() == sorted({worst, 10, 12})


class TestStopping:
    def test_early(self, tmp_path):
        train(
            tmp_path,
            optim__lr=1e-9,
            optim__ema_decay=0.0,
            train__monitor_mode="max",
            train__steps=30,
            train__simulated_steps=0,
            train__validate_every=2,
            train__early_stop_patience=2,
        )
        validations = [m for m in metrics(tmp_path) if "validation/mse" in m]
        assert validations[-1]["step"] < 30

    def test_sigterm_saves_and_the_same_call_continues(
        self, whole, tmp_path, monkeypatch
    ):
        for number, at in ((signal.SIGTERM, 9), (signal.SIGINT, 18)):
            stop_at(monkeypatch, number, at)
            assert not train(tmp_path)
            assert Checkpoints(tmp_path / "checkpoints").steps()[-1] == at
            monkeypatch.undo()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert train(tmp_path)
        assert_same_run(tmp_path, whole)

    def test_a_loss_that_is_not_finite(self, tmp_path):
        data = toy.dataset(
            train=toy.ToySource(48, bad_from=47), simulated=toy.ToySource(10_000)
        )
        with pytest.raises(NonFiniteError, match="the loss is nan"):
            train(tmp_path, dataset=data, train__checkpoint_every=1)
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        state = final_state(tmp_path)
        assert checkpoints.steps()[-1] >= 5
        assert all(np.all(np.isfinite(p)) for p in jax.tree.leaves(state["params"]))

    def test_an_update_that_is_not_finite(self, tmp_path):
        """The loss is finite, and the parameters after the step are not."""
        with pytest.raises(NonFiniteError, match="state are not finite.*--workdir"):
            train(
                tmp_path,
                optim__lr=1e38,
                optim__weight_decay=1e38,
                optim__warmup_min_ratio=0.5,
                train__checkpoint_every=1,
            )
        assert Checkpoints(tmp_path / "checkpoints").steps() == []

    def test_validations_that_are_not_finite_are_reported(self, tmp_path, caplog):
        data = toy.dataset(validation=toy.ToySource(10, bad_from=0))
        train(tmp_path, dataset=data, train__steps=5)
        assert "validation after step 5 has mse=nan" in caplog.text
        assert "no validation had a finite mse" in caplog.text

    def test_during_a_validation(self, whole, tmp_path, monkeypatch):
        """It is begun again when training continues."""
        begun = []

        def begin_and_signal(self):
            begun.append(self)
            if len(begun) == 2:
                os.kill(os.getpid(), signal.SIGUSR1)
            return iterate(self)

        iterate = pipeline.EvaluationBatches.__iter__
        monkeypatch.setattr(pipeline.EvaluationBatches, "__iter__", begin_and_signal)
        assert not train(tmp_path)
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        assert checkpoints.progress(14).validation_due
        assert train(tmp_path)
        assert_same_run(tmp_path, whole)

    def test_while_compiling_there_is_nothing_to_save(
        self, tmp_path, monkeypatch, caplog
    ):
        compile_step = loop._Training._compile

        def signal_and_compile(self, batch):
            os.kill(os.getpid(), signal.SIGTERM)
            compile_step(self, batch)

        monkeypatch.setattr(loop._Training, "_compile", signal_and_compile)
        with caplog.at_level(logging.INFO, "earthformer_jax"):
            assert not train(tmp_path)
        assert "nothing had to be saved; the same command continues" in caplog.text
        assert Checkpoints(tmp_path / "checkpoints").steps() == []


@dataclasses.dataclass(frozen=True)
class Stumbling(toy.ToySource):
    """A source whose file server fails at one example."""

    def __getitem__(self, index):
        if index == self.size - 1:
            raise OSError(5, "Input/output error", "/data/file.nc")
        return super().__getitem__(index)


class TestFaults:
    @pytest.mark.parametrize(
        "split", [dict(train=Stumbling(48, 1)), dict(validation=Stumbling(10, 2))]
    )
    def test_the_step_reached_is_saved_when_reading_fails(self, whole, tmp_path, split):
        with pytest.raises(loop.TrainingError) as error:
            train(tmp_path, dataset=toy.dataset(**split))
        step = Checkpoints(tmp_path / "checkpoints").steps()[-1]
        assert str(error.value) == (
            "the data cannot be read: [Errno 5] Input/output error: '/data/file.nc'; "
            f"step {step} is saved, and the same command continues"
        )
        assert train(tmp_path)
        assert_same_run(tmp_path, whole)

    @pytest.mark.parametrize(
        ("error", "line"),
        [
            (
                WorkerEndedError("Worker process was terminated: number 1"),
                "WorkerEndedError: Worker process was terminated: number 1 (out of "
                "memory? try a smaller config.train.num_workers)",
            ),
            (WorkerError("Unpicklable: odd\nhere"), "WorkerError: Unpicklable: odd"),
        ],
    )
    def test_a_process_that_reads_has_ended(self, tmp_path, monkeypatch, error, line):
        def broken(source, index):
            raise error

        monkeypatch.setattr(toy.ToySource, "__getitem__", broken)
        with pytest.raises(loop.TrainingError) as raised:
            train(tmp_path)
        assert str(raised.value) == f"the data cannot be read: {line}"

    def test_a_full_disk(self, whole, tmp_path, monkeypatch):
        """The record is not on disk, so that no checkpoint may rely on it."""
        flush = loop.Records.flush

        def full(self):
            if len(metrics(whole)) and checkpoints.steps()[-1:] == [14]:
                raise OSError(28, "No space left on device")
            flush(self)

        checkpoints = Checkpoints(tmp_path / "checkpoints")
        monkeypatch.setattr(loop.Records, "flush", full)
        with pytest.raises(loop.TrainingError, match="No space left .* continues"):
            train(tmp_path)
        monkeypatch.undo()
        assert train(tmp_path)
        assert_same_run(tmp_path, whole)

    def test_checkpoints_that_are_gone(self, whole, tmp_path, caplog):
        shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
        shutil.rmtree(tmp_path / "checkpoints")
        train(tmp_path, train__steps=5)
        assert "there is no checkpoint, so training begins anew" in caplog.text
        kept = (tmp_path / "metrics-old-1.jsonl").read_bytes()
        assert kept == (whole / "metrics.jsonl").read_bytes()

    def test_a_workdir_in_use(self, tmp_path):
        with claim(tmp_path), pytest.raises(ConfigError, match="is in use by process"):
            train(tmp_path)


class TestContinuing:
    def test_free_fields_may_change(self, tmp_path, monkeypatch):
        stop_at(monkeypatch, signal.SIGTERM, 9)
        assert not train(tmp_path)
        monkeypatch.undo()
        assert train(tmp_path, train__log_every=5, train__num_threads=2)
        assert metrics(tmp_path)[-1]["step"] == 35
        saved = json.loads((tmp_path / "config.json").read_text())
        assert saved["train"]["log_every"] == 5

    def test_damaged_last_checkpoint(self, whole, tmp_path, monkeypatch, caplog):
        stop_at(monkeypatch, signal.SIGTERM, 17)
        assert not train(tmp_path)
        monkeypatch.undo()
        for path in (tmp_path / "checkpoints/00000017/state").rglob("d/*"):
            os.truncate(path, path.stat().st_size // 3)
        with caplog.at_level(logging.INFO, "earthformer_jax"):
            assert train(tmp_path)
        assert "00000017 is incomplete or damaged" in caplog.text
        assert "continuing after step 14" in caplog.text
        assert_same_run(tmp_path, whole)


class TestPace:
    def test_no_compilation_after_the_first_validation(self, tmp_path, monkeypatch):
        """Steps, validations and checkpoints use the programs of the first ones."""
        compiled, first = [], []
        jax.monitoring.register_event_duration_secs_listener(
            lambda event, seconds, **_: (
                compiled.append(event) if "backend_compile" in event else None
            )
        )
        original = loop.Checkpoints.save

        def save(self, state, progress):
            original(self, state, progress)
            first.append(len(compiled))

        monkeypatch.setattr(loop.Checkpoints, "save", save)
        train(tmp_path)
        assert first[0] > 0
        assert len(compiled) == first[0], compiled[first[0] :]

    def test_scalars_are_read_one_interval_late(self, tmp_path, monkeypatch):
        """Between validations the loop asks for nothing that is not computed yet."""
        dispatched, reads = [], []
        add, read = scalars.ScalarLog.add, scalars._read

        def noted_add(self, step, values):
            dispatched.append(step)
            add(self, step, values)

        def noted_read(rows):
            if rows:
                reads.append((dispatched[-1], rows[-1]["step"]))
            return read(rows)

        monkeypatch.setattr(scalars.ScalarLog, "add", noted_add)
        monkeypatch.setattr(scalars, "_read", noted_read)
        train(
            tmp_path,
            train__steps=20,
            train__log_every=4,
            train__validate_every=20,
        )
        assert reads[:4] == [(8, 4), (12, 8), (16, 12), (20, 16)]
        assert all(at == 20 for at, _ in reads[4:])

    def test_nothing_is_waited_for_between_logs(self, tmp_path, monkeypatch):
        """All steps of an interval are dispatched before anything is asked for."""
        dispatched, waits = [], []
        add = scalars.ScalarLog.add

        def noted_add(self, step, values):
            dispatched.append(step)
            add(self, step, values)

        def noted(function):
            def wait(tree):
                waits.append(len(dispatched))
                return function(tree)

            return wait

        monkeypatch.setattr(scalars.ScalarLog, "add", noted_add)
        for name in ("device_get", "block_until_ready"):
            monkeypatch.setattr(jax, name, noted(getattr(jax, name)))
        train(tmp_path, train__steps=20, train__log_every=20, train__validate_every=20)
        assert waits and set(waits) <= {0, 20}


def stop_at(monkeypatch, number, step):
    """Sends this process a signal after the given step has been dispatched."""
    add = scalars.ScalarLog.add

    def add_and_signal(self, at, values):
        add(self, at, values)
        if at == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(scalars.ScalarLog, "add", add_and_signal)
