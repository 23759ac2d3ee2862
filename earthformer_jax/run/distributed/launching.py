"""Starting the processes of a job on this machine: --launch=N."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from earthformer_jax.run.distributed.job import VARIABLES
from earthformer_jax.run.distributed.peers import GRACE, PARENT, free_port
from earthformer_jax.run.distributed.schedulers import share

_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
]
_POLL = 0.05  # seconds


def command(argv: Sequence[str]) -> list[str]:
    """A command without --launch, for one of the processes that it asks for."""
    words, left = list(argv), []
    while words:
        word = words.pop(0)
        if re.fullmatch("--?launch", word):
            words = words[1:]
        elif not re.match("--?launch=", word):
            left.append(word)
    return [*left, "--distributed"]


def environment(
    before: Mapping[str, str], process: int, processes: int, port: int, gpus: int = 0
) -> dict[str, str]:
    """Variables of one of the processes.

    Args:
        before: those of this one.
        process: its number.
        processes: number of processes.
        port: free, for process 0 to wait at.
        gpus: GPUs of this machine, which are shared out.
    """
    new = {
        VARIABLES["coordinator"]: f"127.0.0.1:{port}",
        VARIABLES["num_processes"]: str(processes),
        VARIABLES["process_id"]: str(process),
        PARENT: str(os.getpid()),
        "PYTHONUNBUFFERED": "1",
    }
    if gpus >= processes > 1 and VARIABLES["local_devices"] not in before:
        seen = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(gpus)))}
        own = share(seen | dict(before), process, processes)
        if own is not None:
            new[VARIABLES["local_devices"]] = ",".join(map(str, own))
    return {**before, **new}


def launch(processes: int, argv: Sequence[str] | None = None) -> int:
    """Runs a command in several processes of one job; returns when all have ended.

    What they print gets their number in front. Signals are passed on to all. When one
    fails, the others end by themselves, or are killed after twice `peers.GRACE`.

    Args:
        processes: how many.
        argv: the command without --launch; None: that of this process.

    Returns:
        0 if all succeeded, else the exit status of the first that failed.
    """
    argv = [sys.executable, *command(sys.orig_argv[1:])] if argv is None else argv
    port = free_port()
    gpus = len([*pathlib.Path("/dev").glob("nvidia[0-9]*")])
    children = [
        subprocess.Popen(
            argv,
            env=environment(os.environ, i, processes, port, gpus),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # signals of the terminal come once, through us
        )
        for i in range(processes)
    ]
    with _passing_on_signals(children):
        threads = [
            threading.Thread(target=_forward, args=(stream, to, f"[{i}] "))
            for i, child in enumerate(children)
            for stream, to in ((child.stdout, sys.stdout), (child.stderr, sys.stderr))
        ]
        for thread in threads:
            thread.start()
        status = _wait(children)
        for thread in threads:
            thread.join()
    return status


def _wait(children: Sequence[subprocess.Popen]) -> int:
    status, deadline = 0, None
    while None in [child.poll() for child in children]:  # asks all of them
        failed = [c.returncode for c in children if c.returncode]
        if failed and deadline is None:
            status, deadline = failed[0], time.monotonic() + 2 * GRACE
        if deadline is not None and time.monotonic() > deadline:
            for child in children:
                child.kill()
        time.sleep(_POLL)
    status = status or next((c.returncode for c in children if c.returncode), 0)
    return 128 - status if status < 0 else status


@contextlib.contextmanager
def _passing_on_signals(children: Sequence[subprocess.Popen]) -> Iterator[None]:
    """A block in which signals are passed on; those that are ignored remain ignored."""

    def pass_on(number, frame) -> None:
        del frame
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    before = {}
    try:
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, pass_on)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _forward(stream: IO[bytes], to, prefix: str) -> None:
    """Prints the lines of a process with its number in front."""
    for line in stream:
        to.write(prefix + line.decode(errors="replace").rpartition("\r")[2])
        to.flush()
