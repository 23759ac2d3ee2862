"""metrics.jsonl and TensorBoard, across interruptions."""

import json
import os

import numpy as np
import pytest

from earthformer_jax.training.records import Records


def lines(folder):
    return (folder / "metrics.jsonl").read_text().splitlines()


def test_one_json_object_per_line(tmp_path):
    with Records(tmp_path, 0) as records:
        records.write(10, "train", {"loss": 0.5, "lr": np.float32(0.25)})
        records.write(10, "validation", {"mse": 1, "correlation": [0.5, 0.25]})
    assert [json.loads(line) for line in lines(tmp_path)] == [
        {"step": 10, "train/loss": 0.5, "train/lr": 0.25},
        {"step": 10, "validation/mse": 1.0, "validation/correlation": [0.5, 0.25]},
    ]
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_what_is_not_finite_is_null(tmp_path):
    with Records(tmp_path, 0) as records:
        records.write(1, "validation", {"a": float("nan"), "b": [np.inf, 1.0]})
    assert json.loads(lines(tmp_path)[0]) == {
        "step": 1,
        "validation/a": None,
        "validation/b": [None, 1.0],
    }


def test_later_steps_and_a_line_cut_short_are_dropped(tmp_path):
    with Records(tmp_path, 0) as records:
        for step in (1, 2, 3):
            records.write(step, "train", {"loss": step})
    kept = lines(tmp_path)[:2]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "train/lo')
    with Records(tmp_path, 2) as records:
        records.write(3, "train", {"loss": 3})
    assert lines(tmp_path)[:2] == kept
    assert [json.loads(line)["step"] for line in lines(tmp_path)] == [1, 2, 3]


def test_a_training_that_begins_anew_keeps_the_earlier_record(tmp_path, caplog):
    for step in (1, 2, 3):
        with Records(tmp_path, 0) as records:
            records.write(step, "train", {"loss": step})
    assert [json.loads(line)["step"] for line in lines(tmp_path)] == [3]
    for number in (1, 2):
        kept = (tmp_path / f"metrics-old-{number}.jsonl").read_text()
        assert json.loads(kept)["step"] == number
        assert f"metrics-old-{number}.jsonl" in caplog.text


def test_damaged_lines_and_a_record_that_is_gone_are_reported(tmp_path, caplog):
    with Records(tmp_path, 5):
        pass
    assert "metrics.jsonl is gone" in caplog.text
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"st\xffp": 2}\n')
    with Records(tmp_path, 5):
        pass
    assert "1 damaged lines of" in caplog.text
    assert lines(tmp_path) == ['{"step": 1}']


def test_a_full_disk_is_one_error(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as error:
        with Records(tmp_path, 0) as records:
            records.write(1, "train", {"loss": 1.0})
            monkeypatch.setattr(os, "fsync", full)
            records.flush()
    assert error.value.__context__ is None


def test_only_the_first_process_writes(tmp_path):
    with Records(tmp_path, 0, writes=False) as records:
        records.write(1, "train", {"loss": 1.0})
        records.flush()
    assert not list(tmp_path.iterdir())
