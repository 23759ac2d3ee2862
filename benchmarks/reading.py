r"""Examples per second of processor time: how fast one core reads or makes examples.

    python benchmarks/reading.py                            every kind
    python benchmarks/reading.py nbody enso --against=TREE  beside another version
    python benchmarks/reading.py nbody enso radar --start   until the first batch

TREE is the folder of another checkout of this repository (`git worktree add TREE TAG`).
Both are measured in turns, each in a process of its own with one thread, and the ratio
is the median over the turns. Processor time does not count what else runs, but that
uses the caches, too, so measure on an idle machine where you can.

Kinds: nbody, moving, enso and radar are generated; flat, gzip and frames read a file of
SEVIR's layout, uint8 (event, 384, 384, 49), stored without compression, compressed by
event, and compressed by frame. The first batch of each turn is not counted: it waits
until the process has imported what it needs.

--start measures that wait instead: the seconds from the order to start a process that
reads ahead (`config.train.num_workers=1`) until its first batch is there.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

KINDS = ("nbody", "moving", "enso", "radar", "flat", "gzip", "frames")
STORED = {
    "flat": {},
    "gzip": dict(chunks=(1, 384, 384, 49), compression="gzip", compression_opts=4),
    "frames": dict(chunks=(1, 384, 384, 1), compression="gzip", compression_opts=4),
}
BATCH = {"nbody": 32, "moving": 32, "enso": 32}  # else 4
EVENTS = 8
RATE = "examples_per_cpu_second"


def write_files(folder: pathlib.Path) -> None:
    """Writes a catalog and a file for each way of storing events."""
    import h5py
    import numpy as np

    from earthformer_jax.data.sevir.twin import RadarTwin

    twin = RadarTwin("train", EVENTS, 49)
    events = np.stack([np.moveaxis(twin[i], 0, -1) for i in range(EVENTS)])
    head = "id,file_name,file_index,img_type,time_utc,pct_missing\n"
    for name, stored in STORED.items():
        (folder / name).mkdir()
        with h5py.File(folder / name / "vil.h5", "w") as file:
            file.create_dataset("vil", data=events, **stored)
        days = ["2018-06-01", "2019-03-01", "2019-08-01"]
        when = [days[max(0, i - EVENTS + 3)] + f" {i:02}:00" for i in range(EVENTS)]
        rows = [f"S{i},vil.h5,{i},vil,{when[i]},0\n" for i in range(EVENTS)]
        (folder / name / "CATALOG.csv").write_text(head + "".join(rows))


def config_of(kind: str, folder: str) -> dict:
    """The settings of the data set of a kind."""
    if kind in STORED:
        return {"name": "sevir", "path": f"{folder}/{kind}"}
    names = {"nbody": "nbody_mnist", "moving": "moving_mnist", "radar": "sevir"}
    return {"name": names.get(kind, kind)}


def rate(kind: str, folder: str, seconds: float) -> float:
    """Examples per second of processor time of the training pipeline of this tree."""
    from earthformer_jax import data
    from earthformer_jax.data import pipeline

    loaded = data.load(config_of(kind, folder), 0).data
    batch_size = BATCH.get(kind, 4)
    batches = pipeline.train_batches(
        loaded, batch_size=batch_size, seed=0, num_threads=0
    )
    next(batches)
    count, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        next(batches)
        count += batch_size
    return count / (time.process_time() - start)


def seconds_to_first(kind: str, folder: str) -> float:
    """Seconds until another process has been started and has read its first batch."""
    from earthformer_jax import data
    from earthformer_jax.data import pipeline

    loaded = data.load(config_of(kind, folder), 0).data
    start = time.perf_counter()
    batches = pipeline.train_batches(
        loaded, batch_size=BATCH.get(kind, 4), seed=0, num_workers=1
    )
    next(batches)
    return time.perf_counter() - start


def in_tree(tree: str, *arguments: str) -> float:
    """What this file prints when it is run with the package of a tree."""
    environment = os.environ | {
        "PYTHONPATH": tree,
        "JAX_PLATFORMS": "cpu",
        **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")},
    }
    command = [sys.executable, os.path.abspath(__file__), *arguments]
    done = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    )
    return float(done.stdout.split()[-1])


def main() -> None:
    """Runs the measurements requested on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--against", help="folder of another checkout")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--start", action="store_true", help="time of the first batch")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    kinds = arguments.kinds or list(KINDS)
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"{', '.join(sorted(unknown))}: expected {', '.join(KINDS)}")
    if arguments.folder:  # a measurement that was started below
        if arguments.start:
            print(seconds_to_first(kinds[0], arguments.folder))
        else:
            print(rate(kinds[0], arguments.folder, arguments.seconds))
        return
    here = str(pathlib.Path(__file__).parents[1])
    trees = [here] + [arguments.against] * bool(arguments.against)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        if set(kinds) & set(STORED):
            write_files(pathlib.Path(folder))
        for kind in kinds:
            options = [kind, f"--folder={folder}", f"--seconds={arguments.seconds}"]
            options += ["--start"] * arguments.start
            turns = [
                [in_tree(tree, *options) for tree in trees]
                for _ in range(arguments.turns)
            ]
            middle = [statistics.median(x) for x in zip(*turns, strict=True)]
            what = "first_batch_seconds" if arguments.start else RATE
            rows[kind] = {what: middle, "turns": turns}
            text = " | ".join(f"{x:,.2f}" for x in middle)
            if len(trees) == 2:
                ratio = statistics.median(a / b for a, b in turns)
                rows[kind]["ratio"] = ratio
                text += f" | {ratio:.2f}"
            print(f"| {kind} | {text} |", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
