"""The script for GPUs: parts that fail, its table, and all parts on a CPU."""

import argparse
import json
import time

import pytest

from benchmarks import gpu, gpu_parts


@pytest.fixture
def benchmark(tmp_path):
    """A run at the size of tests, of which nothing has been run."""
    options = dict(out=tmp_path / "gpu.json", scale="test", peer="", minutes=20)
    return gpu.Benchmark(argparse.Namespace(**options, parts=[*gpu.SHARES]))


def test_unfinished_lines_are_left_out():
    lines = ['{"case": "nbody"}\n', "a warning\n", '{"case": "en']
    assert gpu.rows_of(lines) == [{"case": "nbody"}]


@pytest.mark.parametrize(
    ("program", "ended"),
    [
        ("print('{\"a\": 1}'); 1 / 0", "with exit status 1"),
        (
            "import time; print('{\"a\": 1}', flush=True); time.sleep(60)",
            "stopped after",
        ),
    ],
)
def test_a_part_that_fails_keeps_its_rows(
    benchmark, monkeypatch, tmp_path, program, ended
):
    script = tmp_path / "part.py"
    script.write_text(program)
    monkeypatch.setattr(gpu, "__file__", str(script))
    monkeypatch.setattr(gpu, "GRACE_S", 0.5)
    for part in ("numbers", "attention"):
        monkeypatch.setitem(gpu.SHARES, part, 0.01)
    monkeypatch.setattr(benchmark, "until", benchmark.until - 1150)
    monkeypatch.setattr(benchmark.a, "parts", ["numbers", "attention"])
    benchmark.run()
    found = json.loads(benchmark.a.out.read_text())["parts"]
    assert found["numbers"]["rows"] == [{"a": 1}]
    assert found["numbers"]["ended"].startswith(ended)


def test_no_part_starts_when_the_time_is_over(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "until", 0.0)
    benchmark.run()
    parts = json.loads(benchmark.a.out.read_text())["parts"].values()
    assert {part["ended"] for part in parts} == {"not started: the time is over"}


def test_the_table():
    one = dict(case="nbody", mode="train", type="tf32", batch=16)
    ours = one | dict(
        functions="plain", seconds=0.5, mib=2000.0, gflops=900.0, share=0.4
    )
    without = one | dict(functions="tuned", missing="no memory")
    theirs = [one | dict(compiled=c, seconds=s) for c, s in ((False, 2.0), (True, 1))]
    parts = {
        name: dict(rows=rows, seconds=1.0, ended="well")
        for name, rows in (("ours", [ours, without]), ("theirs", theirs))
    }
    machine = dict(processor="X", cores=2, memory_gib=8, python="3")
    text = gpu.text(dict(machine=machine, parts=parts))
    row = "| nbody | train | tf32 | 16 | plain | ours | 0.500 | 2,000 | 900 | 40% |"
    assert row + " 4.00 | 2.00 |" in text
    assert "| tuned | ours | – | – | – | – | – | – |" in text


def test_every_part_has_a_share():
    assert set(gpu.SHARES) == {*gpu_parts.PARTS, "flags"}


def test_a_part_on_the_command_line(benchmark, monkeypatch, tmp_path):
    """The lightest one, with a package in place of the official one."""
    (tmp_path / "torch.py").write_text("raise ImportError('no torch for this test')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(benchmark.a, "parts", ["theirs"])
    benchmark.run()
    (found,) = json.loads(benchmark.a.out.read_text())["parts"].values()
    assert found["ended"] == "well"
    assert found["rows"] == [{"missing": "no torch for this test"}]


def setting(until=None, **changes):
    """The size of tests, in as much time as it takes by default."""
    until = time.time() + 600 if until is None else until
    scale = gpu_parts.SCALES["test"] | changes
    return gpu_parts.Setting(**scale, peer="", until=until)


@pytest.mark.slow
def test_numbers_against_a_cpu():
    (row,) = gpu_parts.numbers(setting())
    assert 1e-5 < row["forecast"] < 0.1 and row["gradient"] < 0.3


@pytest.mark.slow
def test_a_training_step():
    rates, row = gpu_parts.ours(setting(modes=("train",)))
    assert rates["rates"]["bfloat16"] > 0
    assert row["mode"] == "train" and row["seconds"] > 0 and row["mib"] > 0, row


@pytest.mark.slow
def test_single_layers():
    rows = list(gpu_parts.layers(setting()))
    assert [row["direction"] for row in rows] == ["forward", "gradient"]
    assert all(row["of_products"] > 0 and row["of_memory"] > 0 for row in rows), rows


def test_nothing_starts_after_the_end():
    for part in (gpu_parts.numbers, gpu_parts.attention):
        assert list(part(setting(until=0.0))) == []
