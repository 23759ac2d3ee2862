"""Checkpoints: exact, limited in number, and robust to damage."""

import concurrent.futures
import dataclasses
import json
import logging
import os
import shutil

import jax
import numpy as np
import optax
import pytest

from earthformer_jax.training import checkpoint, optimizer
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training import state as state_lib
from earthformer_jax.training.checkpoint import (
    CheckpointError,
    Checkpoints,
    MismatchError,
    Progress,
)
from earthformer_jax.training.disk import checksums
from earthformer_jax.training.precision import storage
from tests.training import toy

EVERYWHERE = mesh_lib.replicated(mesh_lib.data_mesh())


def make_state(seed=0, ema=True, **model_options):
    tx = optimizer.adamw(optax.constant_schedule(0.1), weight_decay=0.1, clip_norm=1.0)
    state = state_lib.create_state(
        jax.random.key(seed),
        model=toy.ToyModel(**model_options),
        tx=tx,
        input_shape=toy.SHAPE,
        ema=ema,
    )
    return jax.device_put(state, EVERYWHERE)


def like(state):
    return mesh_lib.abstract(state, EVERYWHERE)


def in_bfloat16(tree):
    def cast(leaf):
        return leaf.astype("bfloat16") if leaf.dtype == "float32" else leaf

    return jax.tree.map(cast, tree)


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def save(folder, *steps, best=None):
    """Saves states 0, 1, ...; returns them by step."""
    states = {}
    with Checkpoints(folder) as checkpoints:
        for i, step in enumerate(steps):
            states[step] = make_state(seed=i)
            best_step = best[i] if best else None
            checkpoints.save(states[step], Progress(step=step, best_step=best_step))
    return states


def numbered(step):
    return make_state(step).replace(step=jax.device_put(np.int32(step), EVERYWHERE))


def damage(folder, step):
    """Cuts the arrays of a checkpoint short, as a full disk would."""
    for path in (folder / f"{step:08d}" / "state").rglob("d/*"):
        os.truncate(path, path.stat().st_size // 3)


class TestRoundTrip:
    def test_of_a_version_that_scaled_no_loss(self, tmp_path):
        state = numbered(3)
        fields = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
        del fields["loss_scale"]
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(fields, Progress(step=3))
        restored, _ = Checkpoints(tmp_path).restore_latest(like(state))
        assert_same(restored, state)

    def test_averages_of_bfloat16_parameters(self, tmp_path):
        state = make_state()
        half = jax.tree.map(lambda x: x.astype("bfloat16"), state.params)
        state = state.replace(params=half)
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(state, Progress(step=1))
        found, _ = Checkpoints(tmp_path).restore_variables(
            "last", like(state.variables)
        )
        assert_same(found, state.variables)

    def test_of_a_version_with_bfloat16_moments(self, tmp_path, caplog):
        state = make_state()
        state = state.replace(params=in_bfloat16(state.params))
        old = state.replace(
            opt_state=in_bfloat16(state.opt_state),
            ema_params=in_bfloat16(state.ema_params),
        )
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(old, Progress(step=0))
        with caplog.at_level(logging.INFO):
            restored, _ = Checkpoints(tmp_path).restore_latest(like(state))
        cast = storage.to_float32(old.replace(params=None, rng=None))
        cast = cast.replace(params=state.params, rng=state.rng)
        assert_same(restored, cast)
        assert caplog.text.count("averages in bfloat16, read as float32") == 1
        found, _ = Checkpoints(tmp_path).restore_variables(
            "last", like(state.variables)
        )
        assert_same(found, cast.variables)
        # Parameters themselves are not widened: their type is a setting.
        with pytest.raises(MismatchError, match="params/first/bias: bfloat16"):
            Checkpoints(tmp_path).restore_latest(like(make_state()))

    @pytest.mark.parametrize("batch_norm", [False, True])
    @pytest.mark.parametrize("ema", [False, True])
    def test_state_and_progress_are_exact(self, tmp_path, batch_norm, ema):
        state = make_state(batch_norm=batch_norm, ema=ema)
        progress = Progress(
            step=7,
            batches={"next_index": 9, "nested": {"a": [1, 2]}},
            best_step=5,
            best_score=0.1 + 0.2,
            validations_since_best=2,
            unlogged=[{"step": 7, "loss": 1 / 3, "grad_norm": 1.0, "lr": 1e-3}],
        )
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(state, progress)
        restored, found = Checkpoints(tmp_path).restore_latest(like(state))
        assert_same(restored, state)
        assert found == progress
        assert restored.step.sharding == EVERYWHERE

    def test_nothing_to_restore(self, tmp_path):
        checkpoints = Checkpoints(tmp_path / "absent")
        assert checkpoints.restore_latest(like(make_state())) is None
        assert not (tmp_path / "absent").exists()

    def test_a_donated_state_is_saved_as_it_was(self, tmp_path):
        state = make_state()
        expected = jax.tree.map(np.asarray, state.params)
        overwrite = jax.jit(
            lambda s: s.replace(params=jax.tree.map(lambda p: p + 1, s.params)),
            donate_argnums=0,
        )
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(state, Progress(step=1))
            jax.block_until_ready(overwrite(state))
        restored, _ = Checkpoints(tmp_path).restore_latest(like(make_state()))
        assert_same(restored.params, jax.tree.map(jax.numpy.asarray, expected))


class TestKeeping:
    def test_two_newest_and_the_best(self, tmp_path):
        save(tmp_path, 1, 2, 3, 4, 5, best=[1, 2, 2, 2, 2])
        assert Checkpoints(tmp_path).steps() == [2, 4, 5]

    def test_the_best_of_the_previous_one_is_kept_for_falling_back(self, tmp_path):
        save(tmp_path, 1, 2, 3, best=[1, 1, 3])
        assert Checkpoints(tmp_path).steps() == [1, 2, 3]

    def test_checkpoints_of_an_earlier_run_are_superseded(self, tmp_path):
        states = save(tmp_path, 1, 2, 3)
        with Checkpoints(tmp_path) as checkpoints:
            state, _ = checkpoints.restore_latest(like(states[3]))
            checkpoints.save(state, Progress(step=4))
        assert Checkpoints(tmp_path).steps() == [3, 4]

    def test_leftovers_of_a_deletion_disappear(self, tmp_path):
        save(tmp_path, 1)
        (tmp_path / "00000000.deleting").mkdir()
        save(tmp_path, 2)
        assert not (tmp_path / "00000000.deleting").exists()


def test_a_process_that_fails_does_not_wait_for_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_ALONE", 0.01)
    monkeypatch.setattr(checkpoint.jax, "process_count", lambda: 2)
    with pytest.raises(OSError, match="its own"), Checkpoints(tmp_path) as checkpoints:
        checkpoints._saving = 1, concurrent.futures.Future()  # it never ends
        raise OSError("its own")


class TestDamage:
    @pytest.mark.parametrize(
        "break_it",
        [
            damage,
            lambda folder, step: shutil.rmtree(folder / f"{step:08d}" / "state"),
            lambda folder, step: os.remove(folder / f"{step:08d}/_CHECKPOINT_METADATA"),
            lambda folder, step: os.remove(folder / f"{step:08d}/state/_METADATA"),
            lambda folder, step: (
                shutil.rmtree(folder / f"{step:08d}"),
                (folder / f"{step:08d}").mkdir(),
            ),
        ],
        ids=["short", "no state", "no metadata", "no tree", "empty"],
    )
    def test_the_previous_one_is_used_with_a_warning(self, tmp_path, caplog, break_it):
        states = save(tmp_path, 1, 2)
        break_it(tmp_path, 2)
        with caplog.at_level(logging.WARNING, "earthformer_jax"):
            state, progress = Checkpoints(tmp_path).restore_latest(like(states[1]))
        assert progress.step == 1
        assert_same(state, states[1])
        (message,) = [r.getMessage() for r in caplog.records if "earth" in r.name]
        assert str(tmp_path / "00000002") in message
        assert "incomplete or damaged" in message
        assert f"using {tmp_path / '00000001'} instead" in message

    def test_without_another_one_the_message_says_what_to_do(self, tmp_path):
        states = save(tmp_path, 3)
        damage(tmp_path, 3)
        with pytest.raises(CheckpointError, match="move .* away") as error:
            Checkpoints(tmp_path).restore_latest(like(states[3]))
        assert str(tmp_path / "00000003") in str(error.value)
        assert len(str(error.value)) < 700

    def test_it_is_moved_aside_and_never_deleted(self, tmp_path):
        states = save(tmp_path, 1, 2)
        damage(tmp_path, 2)
        for _ in range(2):
            with Checkpoints(tmp_path) as checkpoints:
                state, _ = checkpoints.restore_latest(like(states[1]))
                for step in (2, 3, 4):
                    checkpoints.save(state, Progress(step=step))
            damage(tmp_path, 4)
        names = {path.name for path in tmp_path.iterdir()}
        assert {"00000002.unreadable", "00000004.unreadable"} <= names

    def test_an_unfinished_save_is_ignored_and_reported(self, tmp_path, caplog):
        states = save(tmp_path, 1)
        unfinished = tmp_path / "00000002.orbax-checkpoint-tmp"
        unfinished.mkdir()
        with caplog.at_level(logging.WARNING, "earthformer_jax"):
            _, progress = Checkpoints(tmp_path).restore_latest(like(states[1]))
        assert progress.step == 1
        assert str(unfinished) in caplog.text

    def test_any_change_of_any_file_is_noticed(self, tmp_path, caplog):
        """Flipped bits, empty and missing files: in arrays, optimiser and progress."""
        states = save(tmp_path / "good", 1, 2)
        rng = np.random.default_rng(0)
        files = [p for p in (tmp_path / "good/00000002").rglob("*") if p.is_file()]
        assert len(files) > 6
        for path in files:
            content = bytearray(path.read_bytes())
            if not content:
                continue
            flipped = bytearray(content)
            flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
            path.write_bytes(flipped)
            _, progress = Checkpoints(tmp_path / "good").restore_latest(like(states[1]))
            assert progress.step == 1, path
            assert "00000002 is incomplete or damaged" in caplog.text
            caplog.clear()
            path.write_bytes(content)
        _, progress = Checkpoints(tmp_path / "good").restore_latest(like(states[1]))
        assert progress.step == 2

    def test_a_checkpoint_of_another_step(self, tmp_path, caplog):
        states = save(tmp_path, 1, 2)
        shutil.copytree(tmp_path / "00000001", tmp_path / "00000005")
        (tmp_path / "00000001").rename(tmp_path / "1")
        _, progress = Checkpoints(tmp_path).restore_latest(like(states[1]))
        assert progress.step == 2
        assert "its progress is that of step 1" in caplog.text
        assert f"{tmp_path / '1'} does not have a checkpoint's name" in caplog.text

    def test_nothing_is_deleted_before_the_new_one_can_be_read(
        self, tmp_path, monkeypatch
    ):
        states = save(tmp_path, 1, 2)
        write = checksums.write

        def write_and_lose(folder):
            write(folder)
            shutil.rmtree(folder / "state")

        monkeypatch.setattr(checksums, "write", write_and_lose)
        with pytest.raises(CheckpointError, match="00000003 is incomplete"):
            with Checkpoints(tmp_path) as checkpoints:
                checkpoints.restore_latest(like(states[1]))
                checkpoints.save(states[1], Progress(step=3))
        assert Checkpoints(tmp_path).steps() == [1, 2, 3]

    def test_a_save_that_fails(self, tmp_path, monkeypatch):
        def full(folder):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(checksums, "write", full)
        with pytest.raises(CheckpointError, match="could be written .* No space left"):
            save(tmp_path, 1)
        assert Checkpoints(tmp_path).steps() == []
        monkeypatch.undo()
        save(tmp_path, 1)
        assert [path.name for path in tmp_path.iterdir()] == ["00000001"]

    def test_one_deleted_by_training_is_not_damaged(self, tmp_path, monkeypatch):
        states = save(tmp_path, 1, 2)
        read = Checkpoints._variables

        def deleted_meanwhile(self, step, *arguments):
            shutil.rmtree(tmp_path / "00000002", ignore_errors=True)
            return read(self, step, *arguments)

        monkeypatch.setattr(Checkpoints, "_variables", deleted_meanwhile)
        _, progress = Checkpoints(tmp_path).restore_variables(
            "last", like(states[1].variables)
        )
        assert progress.step == 1


class TestEarlierVersions:
    """Checkpoints without checksums."""

    @pytest.fixture
    def states(self, tmp_path):
        states = {step: numbered(step) for step in (1, 2)}
        with Checkpoints(tmp_path) as checkpoints:
            for step, state in states.items():
                checkpoints.save(state, Progress(step=step))
        for step in states:
            folder = tmp_path / f"{step:08d}"
            (folder / checksums.FILE).unlink()
            metadata = json.loads((folder / "_CHECKPOINT_METADATA").read_text())
            for name in ("has_checksums", "config", "validation_due"):
                del metadata["custom_metadata"][name]
            (folder / "_CHECKPOINT_METADATA").write_text(json.dumps(metadata))
        return states

    def test_they_are_read_with_a_word(self, states, tmp_path, caplog):
        state, progress = Checkpoints(tmp_path).restore_latest(like(states[2]))
        assert_same(state, states[2])
        assert progress == Progress(step=2)
        assert "00000002 has no checksums" in caplog.text

    def test_arrays_of_another_step(self, states, tmp_path):
        shutil.rmtree(tmp_path / "00000002/state")
        shutil.copytree(tmp_path / "00000001/state", tmp_path / "00000002/state")
        checkpoints = Checkpoints(tmp_path)
        assert checkpoints.restore_latest(like(states[1]))[1].step == 1
        variables = like(states[1].variables)
        assert checkpoints.restore_variables("last", variables)[1].step == 1

    def test_a_state_that_is_not_finite(self, states, tmp_path):
        params = jax.tree.map(lambda p: p * np.nan, states[2].params)
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(states[2].replace(params=params), Progress(step=2))
        (tmp_path / "00000002" / checksums.FILE).unlink()
        metadata = tmp_path / "00000002/_CHECKPOINT_METADATA"
        metadata.write_text(metadata.read_text().replace("has_checksums", "nothing"))
        assert Checkpoints(tmp_path).restore_latest(like(states[1]))[1].step == 1

    def test_checksums_that_were_removed(self, tmp_path):
        states = save(tmp_path, 1, 2)
        (tmp_path / "00000002" / checksums.FILE).unlink()
        assert Checkpoints(tmp_path).restore_latest(like(states[1]))[1].step == 1


class TestMismatch:
    def test_other_shapes_are_named(self, tmp_path):
        save(tmp_path, 1)
        with pytest.raises(MismatchError) as error:
            Checkpoints(tmp_path).restore_latest(like(make_state(features=16)))
        message = str(error.value)
        assert "another model" in message
        assert "params/first/kernel: float32 (48, 8) there, float32 (48, 16)" in message
        assert "opt_state" not in message
        assert len(message) < 900

    def test_missing_and_additional_parameters_are_named(self, tmp_path):
        save(tmp_path, 1)
        other = like(make_state(has_unused=True))
        with pytest.raises(MismatchError, match="params/global_vectors: absent there"):
            Checkpoints(tmp_path).restore_latest(other)

    def test_a_mismatch_is_no_damage(self, tmp_path):
        """An older checkpoint must not be tried instead."""
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(make_state(features=16), Progress(step=1))
            checkpoints.save(make_state(), Progress(step=2))
        with pytest.raises(MismatchError):
            Checkpoints(tmp_path).restore_latest(like(make_state(features=16)))


class TestVariables:
    def test_best_and_last(self, tmp_path):
        states = save(tmp_path, 1, 2, 3, best=[1, 1, 1])
        for which, step in (("best", 1), ("last", 3)):
            variables, progress = Checkpoints(tmp_path).restore_variables(
                which, like(states[step].variables)
            )
            assert progress.step == step
            assert_same(variables, states[step].variables)

    @pytest.mark.parametrize("ema", [False, True])
    def test_averaged_parameters_where_there_are_any(self, tmp_path, ema):
        state = make_state(ema=ema, batch_norm=True)
        if ema:
            twice = jax.tree.map(lambda p: 2 * p, state.params)
            state = state.replace(ema_params=twice)
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(state, Progress(step=1))
        variables, _ = Checkpoints(tmp_path).restore_variables(
            "best", like(state.variables)
        )
        assert_same(variables, state.variables)

    def test_damaged_best_falls_back_to_the_last(self, tmp_path, caplog):
        states = save(tmp_path, 1, 2, 3, best=[1, 1, 1])
        damage(tmp_path, 1)
        with caplog.at_level(logging.WARNING, "earthformer_jax"):
            _, progress = Checkpoints(tmp_path).restore_variables(
                "best", like(states[3].variables)
            )
        assert progress.step == 3
        assert str(tmp_path / "00000001") in caplog.text

    def test_no_checkpoint(self, tmp_path):
        with pytest.raises(CheckpointError, match="holds no checkpoint"):
            Checkpoints(tmp_path).restore_variables(
                "best", like(make_state().variables)
            )

    def test_another_model(self, tmp_path):
        save(tmp_path, 1)
        other = like(make_state(features=16).variables)
        with pytest.raises(MismatchError, match="params/first/kernel"):
            Checkpoints(tmp_path).restore_variables("last", other)
