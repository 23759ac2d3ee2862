"""Training killed at random moments ends like training that was never killed."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from earthformer_jax.training.checkpoint import Checkpoints
from tests.training.test_loop import assert_same_run

ROOT = pathlib.Path(__file__).resolve().parents[2]
OVERRIDES = ("train__epochs=40.0", "train__validate_every=9", "train__micro_batch=4")


def start(workdir, *overrides):
    command = [sys.executable, "-m", "tests.training.toy", str(workdir)]
    return subprocess.Popen(
        [*command, *OVERRIDES, *overrides],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_training(process, said="devices:"):
    """Returns at a line of the log, by default the one before the first step."""
    seen = []
    for line in process.stderr:
        seen.append(line)
        if said in line:
            return
    raise AssertionError("".join(seen))


def finish(process):
    output = process.communicate(timeout=300)[1]
    assert process.returncode == 0, output


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    finish(start(workdir))
    return workdir


def reached(workdir):
    return max(Checkpoints(workdir / "checkpoints").steps(), default=0)


@pytest.mark.slow
def test_killed_at_random_moments(whole, tmp_path):
    """With checkpoints at validations alone, then with more."""
    rng, steps = random.Random(0), []
    for checkpoint_every in (0, 5):
        process = start(tmp_path, f"train__checkpoint_every={checkpoint_every}")
        wait_until_training(process)
        time.sleep(rng.uniform(0.3, 1.5))
        process.kill()
        process.communicate()
        steps.append(reached(tmp_path))
    assert steps[0] < 245, "killed too late to show anything"
    assert steps == sorted(steps)
    finish(start(tmp_path, "train__checkpoint_every=5"))
    assert_same_run(tmp_path, whole)


@pytest.mark.slow
def test_sigterm_ends_cleanly(whole, tmp_path):
    process = start(tmp_path)
    wait_until_training(process, "step 4/")
    process.send_signal(signal.SIGTERM)
    finish(process)
    assert reached(tmp_path)
    finish(start(tmp_path))
    assert_same_run(tmp_path, whole)


def runs(pid):
    """Whether a process exists and is not only waiting to be collected."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc lists processes")
def test_reading_processes_end_with_a_killed_training(tmp_path):
    process = start(tmp_path, "train__num_workers=2", "train__epochs=4000.0")
    wait_until_training(process, "step 4/")
    lists = pathlib.Path(f"/proc/{process.pid}/task").glob("*/children")
    children = [int(pid) for path in lists for pid in path.read_text().split()]
    assert sum(map(runs, children)) >= 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while any(map(runs, children)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
