"""With nothing to save, a request to stop ends the program in one line."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys
from earthformer_jax.run import interrupts
assert "jax" not in sys.modules
interrupts.end_when_asked()
print("ready", flush=True)
ctypes.CDLL(None).sleep(30)  # restarted by Python's handler, as a compilation goes on
ctypes.CDLL(None).sleep(30)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_one_line_and_the_status(name):
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    program.send_signal(getattr(signal, name))
    _, said = program.communicate(timeout=20)
    assert said == f"stopped by {name}; the same command continues\n"
    assert program.returncode == 143


def test_ignored_signals_remain_ignored():
    program = PROGRAM.replace("import ctypes", "import signal, ctypes").replace(
        "interrupts.end", "signal.signal(signal.SIGHUP, signal.SIG_IGN); interrupts.end"
    )
    code = program.split("ctypes.CDLL")[0] + "signal.raise_signal(signal.SIGHUP)"
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 0


def test_what_was_taken_over_below_python_is_taken_back():
    ready = 'print("ready", flush=True)'
    taken = f"ctypes.CDLL(None).signal({int(signal.SIGTERM)}, 1)  # ignored"
    again = "interrupts.end_when_asked_again()"
    for lines, status in ([taken, again], 143), ([taken], 0):
        code = PROGRAM.split(ready)[0] + "\n".join(
            [*lines, "import signal, time", "signal.raise_signal(signal.SIGTERM)"]
            + ["time.sleep(10 if len(sys.argv) > 1 else 0)"]
        )
        more = ["wait"] if status else []
        done = subprocess.run([sys.executable, "-c", code, *more], timeout=30)
        assert done.returncode == status
