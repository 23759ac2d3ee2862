"""Kills a job of two processes in every way, and compares it with one left alone.

    nice python -m benchmarks.killed_jobs --kills=30 --output=killed_jobs.json

The processes train the small model of the tests on the loopback. One after the other
they are killed at random moments: the first, the second, both, by SIGTERM, while a
checkpoint is being written, and frozen (SIGSTOP), which stands for a machine that does
not answer any more. After each kill the same command goes on in the same workdir. It
is checked that no process outlives the bound, that the last finished checkpoint can
still be read, and that the metrics and parameters in the end are those of a job that
was never killed.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from earthformer_jax.run.distributed.job import VARIABLES
from earthformer_jax.run.distributed.peers import LOST, free_port
from earthformer_jax.run.interrupts import STOPPED

WAYS = ("first", "second", "both", "sigterm", "saving", "frozen")
LOST_AFTER = 10.0  # seconds without an answer until a process is taken for lost
BOUND = {"frozen": 2 * LOST_AFTER + 10, "sigterm": 60.0}  # seconds; others: END
END = 30.0  # seconds until the end of all processes after the end of one
CHANGES = dict(
    train__epochs=20.0,
    train__checkpoint_every=5,
    train__validate_every=40,
    train__log_every=20,
)


def work(workdir: str) -> None:
    """One process of the job; ends the program."""
    import jax

    from earthformer_jax import main
    from earthformer_jax.run.distributed import job, joining
    from earthformer_jax.training import loop
    from tests.training import toy

    def train(_) -> int:
        dataset, config = toy.dataset(), toy.config(**CHANGES)
        watch = joining.join(job.find({}, os.environ), 600.0, LOST_AFTER)
        main._watches.append(watch)
        assert jax.process_count() == 2
        done = loop.train(config, workdir, dataset=dataset, model=toy.ToyModel())
        return 0 if done else STOPPED

    main._show_log = lambda: None
    main.main = train
    sys.exit(main._main([]))


class Job:
    """Two processes that train in a workdir."""

    def __init__(self, workdir: pathlib.Path):
        port, self.log = free_port(), workdir.with_suffix(".log")
        self.workdir = workdir
        self.processes = []
        for i in range(2):
            told = (f"127.0.0.1:{port}", "2", str(i), "0")
            environment = dict(zip(VARIABLES.values(), told, strict=True))
            with self.log.open("a") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.killed_jobs", "--work", workdir],
                    env=os.environ | environment | {"JAX_PLATFORMS": "cpu"},
                    stderr=log,
                    stdout=log,
                )
            self.processes.append(process)

    def statuses(self) -> list[int | None]:
        """Exit statuses; None: still runs."""
        return [process.poll() for process in self.processes]

    def wait(self, seconds: float) -> float | None:
        """Seconds until both have ended; None: they have not, and were killed."""
        began = time.monotonic()
        while None in self.statuses():
            if time.monotonic() - began > seconds:
                for process in self.processes:
                    process.kill()
                    process.wait()
                return None
            time.sleep(0.02)
        return time.monotonic() - began


def saved(workdir: pathlib.Path) -> int:
    """The step of the newest finished checkpoint, 0 if there is none."""
    folder = workdir / "checkpoints"
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=0)


def wait_until(condition, job: Job, seconds: float = 900.0) -> bool:
    """Waits for something; False if the job ends before it."""
    deadline = time.monotonic() + seconds
    while not condition():
        if None not in job.statuses():
            return False
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing happens; see {job.log}")
        time.sleep(0.002)
    return True


def kill(job: Job, way: str, rng: random.Random) -> float | None:
    """Kills a job in one of the ways.

    Returns:
        the time of it, as `time.monotonic`; None if the job was done before.
    """
    before = saved(job.workdir)
    if not wait_until(lambda: saved(job.workdir) > before, job):
        return None
    time.sleep(rng.uniform(0.0, 2.0))
    if way == "saving":
        folder = job.workdir / "checkpoints"
        if not wait_until(lambda: [*folder.glob("*.saving*")], job):
            return None
        time.sleep(rng.uniform(0.0, 0.03))
    if None not in job.statuses():
        return None
    victims = {"first": [0], "second": [1], "both": [0, 1]}.get(way, [rng.randrange(2)])
    number = {"sigterm": signal.SIGTERM, "frozen": signal.SIGSTOP}.get(
        way, signal.SIGKILL
    )
    killed = time.monotonic()
    for i in victims:
        job.processes[i].send_signal(number)
    if way == "frozen":
        (i,) = victims
        other = job.processes[1 - i]
        while other.poll() is None and time.monotonic() - killed < BOUND[way]:
            time.sleep(0.05)
        if other.poll() is not None:
            job.processes[i].kill()
    return killed


def look(workdir: pathlib.Path, step: int) -> None:
    """Reads the newest checkpoint; raises if it is damaged or older than `step`."""
    program = (
        "import sys; from pathlib import Path; "
        "from earthformer_jax.training.checkpoint import Checkpoints; "
        "c = Checkpoints(Path(sys.argv[1], 'checkpoints')); s = c.steps()[-1]; "
        "assert s >= int(sys.argv[2]), s; c._verified(s)"
    )
    subprocess.run([sys.executable, "-c", program, workdir, str(step)], check=True)


def compare(found: pathlib.Path, expected: pathlib.Path) -> None:
    """Raises unless two workdirs have the same metrics and the same last parameters."""
    metrics = [(path / "metrics.jsonl").read_bytes() for path in (found, expected)]
    assert metrics[0] == metrics[1], f"{found} has other metrics than {expected}"
    program = (
        "import sys, jax, numpy as np; from pathlib import Path; "
        "from earthformer_jax.training.checkpoint import Checkpoints; "
        "both = [Checkpoints(Path(x, 'checkpoints')) for x in sys.argv[1:]]; "
        "assert both[0].steps()[-1] == both[1].steps()[-1]; "
        "[jax.tree.map(np.testing.assert_array_equal, "
        "*(c.restore_variables('last', averaged=a)[0] for c in both)) "
        "for a in (False, True)]"
    )
    subprocess.run([sys.executable, "-c", program, found, expected], check=True)


def run(kills: int, seed: int, folder: pathlib.Path) -> list[dict]:
    """Kills and compares; what was seen, a row for each kill."""
    whole = folder / "whole"
    assert Job(whole).wait(3000) is not None, "the job that is left alone hangs"
    rng, rows, chain = random.Random(seed), [], 0
    workdir = folder / "chain0"
    while len(rows) < kills:
        way, job = WAYS[len(rows) % len(WAYS)], Job(workdir)
        before = time.monotonic()
        if (killed := kill(job, way, rng)) is not None:
            step = saved(workdir)
            ended = job.wait(BOUND.get(way, END)) is not None
            seconds = time.monotonic() - killed if ended else None
            row = dict(
                way=way,
                saved_step=step,
                trained_seconds=round(killed - before, 1),
                end_seconds=None if seconds is None else round(seconds, 2),
                statuses=job.statuses(),
            )
            rows.append(row)
            print(json.dumps(row), flush=True)
            look(workdir, step)
        elif job.wait(60) is None or job.statuses() != [0, 0]:
            raise RuntimeError(f"it did not end well: {job.statuses()}, see {job.log}")
        if job.statuses() == [0, 0]:
            compare(workdir, whole)
            print(f"chain {chain}: the same numbers as left alone", flush=True)
            chain += 1
            workdir = folder / f"chain{chain}"
    job = Job(workdir)
    assert job.wait(3000) is not None and job.statuses() == [0, 0], job.statuses()
    compare(workdir, whole)
    print(f"chain {chain}: the same numbers as left alone", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work)
    with tempfile.TemporaryDirectory() as folder:
        rows = run(arguments.kills, arguments.seed, pathlib.Path(folder))
    hung = [row for row in rows if row["end_seconds"] is None]
    told = [row for row in rows if LOST in row["statuses"]]
    print(f"{len(rows)} kills, {len(hung)} hung, {len(told)} ended with status {LOST}")
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(bool(hung))


if __name__ == "__main__":
    main()
