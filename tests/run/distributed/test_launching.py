"""One command becomes several processes of one job."""

import signal
import subprocess
import sys
import time

import pytest

from earthformer_jax.run.distributed import job, launching

PROGRAM = "import os, sys; i = int(os.environ['JAX_PROCESS_ID']); "


def start(program):
    return launching.launch(3, [sys.executable, "-c", PROGRAM + program])


def test_the_command_of_each():
    argv = ["-m", "earthformer_jax.main", "--launch=2", "--workdir=w", "--launch", "3"]
    expected = ["-m", "earthformer_jax.main", "--workdir=w", "--distributed"]
    assert launching.command(argv) == expected


def test_the_environment_tells_the_job():
    variables = launching.environment({"HOME": "/home"}, 1, 2, 8476)
    found = job.find({}, variables)
    assert found.coordinator == "127.0.0.1:8476"
    assert (found.processes, found.process, found.local_devices) == (2, 1, None)
    assert variables["HOME"] == "/home"


@pytest.mark.parametrize(
    "before, gpus, own",
    [
        ({}, 4, (2, 3)),
        ({"CUDA_VISIBLE_DEVICES": "6,7"}, 8, (1,)),
        ({"JAX_LOCAL_DEVICE_IDS": "5"}, 8, (5,)),
        ({}, 1, None),
    ],
)
def test_gpus_are_shared_out(before, gpus, own):
    variables = launching.environment(before, 1, 2, 8476, gpus)
    assert job.find({}, variables).local_devices == own


def test_lines_have_the_number_of_the_process(capsys):
    handler = signal.getsignal(signal.SIGTERM)
    assert start("print('started'); print('warned', file=sys.stderr)") == 0
    assert signal.getsignal(signal.SIGTERM) == handler
    printed = capsys.readouterr()
    assert sorted(printed.out.splitlines()) == [f"[{i}] started" for i in range(3)]
    assert sorted(printed.err.splitlines()) == [f"[{i}] warned" for i in range(3)]


def test_the_status_is_that_of_the_first_that_fails(monkeypatch):
    monkeypatch.setattr(launching, "GRACE", 0.1)
    began = time.monotonic()
    assert start("import time; i == 1 and sys.exit(7); time.sleep(60)") == 7
    assert start("i == 1 and os.kill(os.getpid(), 9)") == 137
    assert time.monotonic() - began < 40


def test_signals_reach_all():
    program = (
        "from earthformer_jax.run.distributed import launching; import sys; "
        "child = '''import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print('ready', flush=True)\ntime.sleep(60)'''; "
        "sys.exit(launching.launch(2, [sys.executable, '-c', child]))"
    )
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert {process.stdout.readline() for _ in range(2)} == {
        "[0] ready\n",
        "[1] ready\n",
    }
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 5
    assert process.stdout.read() == ""
