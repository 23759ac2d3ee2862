"""One command in two processes does what it does in one, however it ends."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from earthformer_jax.run.distributed.peers import LOST, free_port
from earthformer_jax.run.interrupts import STOPPED
from earthformer_jax.training.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).resolve().parents[3]
CONFIG = """
from tests.training import toy

def get_config():
    return toy.config(train__epochs={epochs})
"""


def start(folder, name, *flags, epochs=5.0, **variables):
    config = folder / f"{name}.py"
    config.write_text(CONFIG.format(epochs=epochs))
    command = [sys.executable, "-m", "tests.run.distributed.toy_main"]
    return subprocess.Popen(
        [*command, f"--config={config}", f"--workdir={folder / name}", *flags],
        cwd=ROOT,
        env=os.environ
        | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
        | variables,
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process, status=0):
    output = process.communicate(timeout=300)[0]
    assert process.returncode == status, output
    return output


@pytest.fixture(scope="module")
def in_two(tmp_path_factory):
    """The workdir of a training in two processes that nothing interrupted."""
    folder = tmp_path_factory.mktemp("two")
    finish(start(folder, "w", "--launch=2"))
    return folder / "w"


def assert_same_numbers(found, expected):
    one, other = (
        [json.loads(line) for line in (path / "metrics.jsonl").open()]
        for path in (found, expected)
    )
    assert [line["step"] for line in one] == [line["step"] for line in other]
    for a, b in zip(one, other, strict=True):
        for name in b:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4)
    last = [Checkpoints(p / "checkpoints") for p in (found, expected)]
    assert last[0].steps() == last[1].steps() == [28, 35]
    assert last[0].progress(35).batches == last[1].progress(35).batches
    scores = [json.loads((p / "scores.json").read_text()) for p in (found, expected)]
    mse = [s["forecasts"]["model"]["mse"] for s in scores]
    np.testing.assert_allclose(*mse, rtol=1e-4)


@pytest.mark.slow
def test_an_error_in_two_processes_a_stop_and_the_rest_in_one(tmp_path, in_two):
    """Whatever ended before, the numbers are those of an uninterrupted training."""
    output = finish(start(tmp_path, "w", "--launch=2", TOY_UNREADABLE="1"), 2)
    own = "error: the data cannot be read: [Errno 5] Input/output error"
    assert f"[1] {own}" in output
    (told,) = [line for line in output.splitlines() if line.startswith("[0] process 1")]
    assert f"ends: {own}" in told

    process = start(tmp_path, "w", "--launch=2")
    seen = ""
    for line in process.stdout:
        seen += line
        if re.search(r"step \d+/", line):
            break
    process.send_signal(signal.SIGTERM)
    finish(process, STOPPED)
    step = Checkpoints(tmp_path / "w" / "checkpoints").steps()[-1]
    assert 4 <= step < 35, seen

    finish(start(tmp_path, "w"))
    assert_same_numbers(tmp_path / "w", in_two)


@pytest.mark.slow
def test_a_frozen_process_ends_the_other_in_one_line(tmp_path):
    """The first, which all others need; test_peers.py has both directions."""
    port = free_port()
    flags = ["--distributed", f"--coordinator=127.0.0.1:{port}", "--num_processes=2"]
    both = [
        start(tmp_path, "w", *flags, f"--process_id={i}", "--lost_after=5", epochs=1e4)
        for i in range(2)
    ]
    try:
        first = both[0].stdout
        assert first is not None and any("step 4/" in line for line in first)
        both[0].send_signal(signal.SIGSTOP)
        began = time.monotonic()
        lines = finish(both[1], LOST).splitlines()
        assert time.monotonic() - began < 15
    finally:
        for process in both:
            process.kill()
            process.wait()
    (told,) = [x for x in lines if "step " not in x and not x.startswith("[Gloo]")]
    assert told.startswith("error: process 0 (")
    assert "has not answered for 5 s, so that all processes of the job end" in told


@pytest.mark.slow
def test_a_job_that_nobody_joins_ends_in_one_line(tmp_path):
    flags = ["--distributed", "--coordinator=127.0.0.1:9", "--num_processes=2"]
    more = ["--process_id=1", "--join_within=1"]
    output = finish(start(tmp_path, "w", *flags, *more), 2)
    assert output.startswith("error: process 0 does not answer at 127.0.0.1:9 within 1")
    assert len(output.splitlines()) == 1 and not (tmp_path / "w").exists()
