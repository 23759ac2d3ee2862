r"""Our Earthformer and the official one in PyTorch, compared on CPU cores.

    python benchmarks/earthformer.py --cases nbody,enso --batch 2 --rounds 5 \
        --peer earth-forecasting-transformer/src --out benchmarks/results/cpu.json
    python benchmarks/earthformer.py --table benchmarks/results/cpu.json more.json

Time and peak memory of a forward pass, and of a training step: forward with dropout,
mean squared error, gradient, clipping, AdamW. Both sides have the same weights and
inputs, and their forecasts have to agree before anything is timed. Each runs in its own
process, so that its peak memory can be measured; they take turns, call by call, so that
other load on the machine affects both, and one waits while the other is measured.

The official code (https://github.com/amazon-science/earth-forecasting-transformer) is
looked for in the folder --peer, which holds the package `earthformer`, or among the
installed packages; it needs PyTorch. Without it only ours is measured.

With --compile the official code also runs under `torch.compile`, in every mode that is
named: each is tried by itself, and the fastest takes turns with the other two. What it
compiles is kept in TORCHINDUCTOR_CACHE_DIR, if that is set.

Ours spreads the batch over one CPU device per core if the cores divide the batch, and
uses the huge pages of GNU libc's malloc; the official code gets them with
--peer-huge-pages. A separate process compiles our program before the measurements; the
measured one finds it in the cache, as every run but the first does.
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[1]
# In place of this folder, whose earthformer.py would hide the package `earthformer`.
sys.path[0] = str(ROOT)

import numpy as np  # noqa: E402

from benchmarks import cases, machine, options, report  # noqa: E402
from benchmarks.processes import Worker, WorkerError  # noqa: E402

MODES = ("forward", "train")
COMPILE_MODES = (
    "default",
    "reduce-overhead",
    "max-autotune-no-cudagraphs",
    "blocks",
)
COMPILE_CALLS = 3  # of every mode, to find the fastest
WARM_UP = 2  # calls
PAUSE_S = 0.3  # before a turn: threads of the other side stop waiting actively
LARGEST_DIFFERENCE = 1e-4  # of forecasts, relative to the largest value
RATE_TURNS = 5
HUGE_PAGES = "glibc.malloc.hugetlb=1"


class DisagreementError(RuntimeError):
    """The two sides do not compute the same result."""


class Benchmark:
    """The settings of a run, and its results so far."""

    def __init__(self, a: argparse.Namespace):
        self.a = a
        self.dropout = 0.0 if a.no_dropout else cases.DROPOUT
        self.devices = a.devices or machine.largest_divisor(a.batch, machine.cores())
        self.folder = None  # for weights and forecasts
        self.missing = ""  # why the official code is not measured
        self.report = dict(
            machine=machine.describe() | dict(versions={}),
            settings=dict(
                cases=a.cases,
                modes=a.modes,
                batch=a.batch,
                rounds=a.rounds,
                dropout=self.dropout,
                scan_blocks=a.scan_blocks,
                compile=a.compile,
                devices=self.devices,
                warm_up=WARM_UP,
                pause_s=PAUSE_S,
            ),
            matrix_gflops={},
            missing="",
            differences={},
            rows=[],
        )

    def run(self) -> None:
        """Measures everything; the report is written after every row."""
        with tempfile.TemporaryDirectory() as folder:
            self.folder = pathlib.Path(folder)
            self._measure_rates()
            for case in self.a.cases:
                self._measure_case(case)

    def ours(self) -> Worker:
        """A worker that runs our code, before its "start" command."""
        environment = _environment() | dict(
            JAX_PLATFORMS="cpu",
            JAX_COMPILATION_CACHE_DIR=str(self.folder / "programs"),
            JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        )
        if sys.platform == "linux":
            environment["GLIBC_TUNABLES"] = _tunables(environment)
        return Worker("benchmarks.worker_jax", environment)

    def official(self) -> Worker:
        """A worker that runs the official code, before its "start" command."""
        programs = dict(TORCHINDUCTOR_CACHE_DIR=str(self.folder / "inductor"))
        environment = programs | _environment()
        if self.a.peer_huge_pages and sys.platform == "linux":
            environment["GLIBC_TUNABLES"] = _tunables(environment)
        return Worker("benchmarks.worker_torch", environment)

    def _start(self, stack: contextlib.ExitStack) -> dict[str, Worker]:
        """Both workers, or only ours, with their imports done."""
        workers = {"ours": stack.enter_context(self.ours())}
        starts = {"ours": workers["ours"].ask("start")}
        if not self.missing:
            worker = stack.enter_context(self.official())
            starts["official"] = worker.ask("start", peer=self._peer())
            self.missing = starts["official"].get("missing", "")
            if self.missing:
                print(f"measuring only ours: {self.missing}", flush=True)
            else:
                workers["official"] = worker
        for name in workers:
            self.report["machine"]["versions"] |= starts[name].pop("versions")
            self.report["settings"][name] = starts[name]
        self.report["missing"] = self.missing
        return workers

    def _peer(self) -> str:
        return str(self.a.peer.absolute()) if self.a.peer else ""

    def _measure_rates(self) -> None:
        """The rates of matrix products: the best of several."""
        with contextlib.ExitStack() as stack:
            workers = self._start(stack)
            found = [self._rates(workers) for _ in range(RATE_TURNS)]
        libraries = dict(ours="JAX", official="PyTorch")
        self.report["matrix_gflops"] = {
            libraries[name]: max(rates[name] for rates in found) for name in workers
        }

    def _rates(self, workers: dict[str, Worker]) -> dict[str, float]:
        """GFLOP/s of a product of matrices, one after the other."""
        found = {}
        for name, worker in workers.items():
            time.sleep(PAUSE_S)
            seconds = worker.ask("rate")["seconds"]
            found[name] = machine.MATRIX_OPERATIONS / seconds / 1e9
        return found

    def _measure_case(self, case: str) -> None:
        """Checks that both agree, then measures each mode with new processes."""
        with self._prepared(case, "forward") as (workers, prepared):
            self._compare(case, workers)
            if "forward" in self.a.modes:
                self._measure(case, "forward", workers, prepared)
        if "train" in self.a.modes:
            with self._prepared(case, "train") as (workers, prepared):
                self._measure(case, "train", workers, prepared)

    @contextlib.contextmanager
    def _prepared(self, case: str, mode: str):
        """Workers that are ready to run, and what they say about their models."""
        arguments = self._arguments(case, mode)
        weights = self.folder / f"{case}.npz"
        with contextlib.ExitStack() as stack:
            cold = self._compile(case, mode)
            workers, prepared = self._start(stack), dict(cold=cold)
            prepared["ours"] = self._prepare_ours(workers["ours"], case, mode)
            if mode == "forward":
                workers["ours"].ask("export", path=str(weights))
            prepared["tried"] = {}
            if "official" in workers:
                arguments["weights"] = str(weights)
                prepared["official"] = workers["official"].ask("prepare", **arguments)
                if mode in self.a.modes:
                    prepared["tried"] = tried = self._try_compiled(arguments)
                    best = fastest(tried)
                    if best:
                        worker = stack.enter_context(self.official())
                        worker.ask("start", peer=self._peer())
                        worker.ask("prepare", **arguments, compiled=best)
                        workers["compiled"] = worker
                        prepared["compiled"] = dict(mode=best)
            yield workers, prepared

    def _try_compiled(self, arguments: dict) -> dict[str, dict]:
        """What `torch.compile` takes in each mode, or why it fails.

        Returns:
            mode -> "first_call_s", which compiles, and "median_s" of a few calls after
            it; or {"missing": reason}.
        """
        found = {}
        for mode in self.a.compile:
            with self.official() as worker:
                worker.ask("start", peer=self._peer())
                try:
                    made = worker.ask("prepare", **arguments, compiled=mode)
                    worker.ask("settle", calls=0)
                    calls = [worker.ask("measure") for _ in range(COMPILE_CALLS)]
                except WorkerError as error:
                    found[mode] = dict(missing=str(error).strip().splitlines()[-1])
                    continue
            seconds = statistics.median(call["seconds"] for call in calls)
            found[mode] = dict(first_call_s=made["first_call_s"], median_s=seconds)
            print(f"torch.compile, {mode}: {found[mode]}", flush=True)
        return found

    def _arguments(self, case: str, mode: str) -> dict:
        dropout = self.dropout if mode == "train" else 0.0
        return dict(case=case, mode=mode, batch=self.a.batch, dropout=dropout)

    def _compare(self, case: str, workers: dict[str, Worker]) -> None:
        """Records the largest difference between the forecasts.

        Raises:
            DisagreementError: if it exceeds `LARGEST_DIFFERENCE`.
        """
        if "official" not in workers:
            return
        forecasts = {}
        for name, worker in workers.items():
            path = self.folder / f"{name}.npy"
            worker.ask("forecast", path=str(path))
            forecasts[name] = np.load(path)
        want = forecasts.pop("official")
        difference = max(largest_difference(x, want) for x in forecasts.values())
        self.report["differences"][case] = difference
        print(f"{case}: forecasts differ by {difference:.1e}", flush=True)
        if not difference <= LARGEST_DIFFERENCE:
            raise DisagreementError(
                f"{case}: the forecasts differ by {difference:.2g} of the largest "
                f"value; at most {LARGEST_DIFFERENCE:g} is accepted for the same model"
            )

    def _measure(self, case, mode, workers, prepared) -> None:
        """One row: calls in turns, with a product of matrices; then the peaks."""
        for worker in workers.values():
            worker.ask("settle", calls=WARM_UP)
        calls, rates = {name: [] for name in workers}, []
        with contextlib.ExitStack() as stack:
            # Other processes, so that their matrices do not count.
            multiplying = self._start(stack)
            for _ in range(self.a.rounds):
                for name, worker in workers.items():
                    time.sleep(PAUSE_S)
                    calls[name].append(worker.ask("measure"))
                rates.append(self._rates(multiplying))
        row = self._arguments(case, mode)
        row["matrix_gflops"] = [max(found.values()) for found in rates]
        row["multiply_adds"] = prepared["cold"].pop("multiply_adds")
        row["compilation"] = dict(
            cold=prepared["cold"],
            cached={k: prepared["ours"].pop(k) for k in ("lower_s", "compile_s")},
        )
        row["tried"] = prepared["tried"]
        for name in ("ours", "official", "compiled"):
            row[name] = None
            if name in workers:
                row[name] = side(calls[name], workers[name].ask("memory"))
                row[name] |= prepared[name]
        rate = statistics.median(row["matrix_gflops"])
        self.report["rows"].append(row | ratios(row, rate))
        self._write()
        print(report.earthformer(self.report), flush=True)

    def _compile(self, case: str, mode: str) -> dict:
        """Seconds to lower and compile, and multiply-adds, from a separate process.

        The process fills the cache. Counting traces the model again, which would hold
        memory that no real run needs.
        """
        with self.ours() as worker:
            worker.ask("start")
            answer = self._prepare_ours(worker, case, mode)
            count = worker.ask("count")
        return {k: answer[k] for k in ("lower_s", "compile_s")} | count

    def _prepare_ours(self, worker: Worker, case: str, mode: str) -> dict:
        return worker.ask(
            "prepare",
            **self._arguments(case, mode),
            devices=self.devices,
            scan_blocks=self.a.scan_blocks,
        )

    def _write(self) -> None:
        if not self.a.out:
            return
        self.a.out.parent.mkdir(parents=True, exist_ok=True)
        self.a.out.write_text(json.dumps(self.report, indent=2) + "\n")
        self.a.out.with_suffix(".md").write_text(report.earthformer(self.report))


def fastest(tried: dict[str, dict]) -> str:
    """The mode of `torch.compile` with the shortest call; empty if none runs."""
    ran = {
        mode: found["median_s"] for mode, found in tried.items() if "median_s" in found
    }
    return min(ran, key=ran.__getitem__, default="")


def largest_difference(ours: np.ndarray, official: np.ndarray) -> float:
    """Largest absolute difference, relative to the largest absolute value.

    Raises:
        DisagreementError: if the shapes differ.
    """
    if ours.shape != official.shape:
        raise DisagreementError(f"shapes differ: {ours.shape} and {official.shape}")
    return float(np.abs(ours - official).max() / np.abs(official).max())


def side(calls: list[dict], memory: dict) -> dict:
    """Summary of one side's turns."""
    times = [call["seconds"] for call in calls]
    return dict(
        median_s=statistics.median(times),
        seconds=times,
        losses=[call["loss"] for call in calls],
        **memory,
    )


def ratios(row: dict, matrix_gflops: float) -> dict:
    """Figures derived from a row: times as official / ours, memory as ours / official,
    operations per second and their share of the rate of matrix products.

    Args:
        row: with "ours", and "official" or None, and perhaps "compiled".
        matrix_gflops: the rate of matrix products meanwhile.
    """
    ours, official = row["ours"], row["official"]
    passes = 3 if row["mode"] == "train" else 1
    gflops = 2 * passes * row["multiply_adds"] / ours["median_s"] / 1e9
    found = dict(gflops=gflops, share=gflops / matrix_gflops)
    found |= dict(time_ratio=None, compiled_ratio=None, loss_difference=None)
    found |= dict(memory_share=None, total_memory_share=None)
    if official is None:
        return found
    found["time_ratio"] = official["median_s"] / ours["median_s"]
    if row.get("compiled"):
        found["compiled_ratio"] = row["compiled"]["median_s"] / ours["median_s"]
    if ours["peak_mib"] and official["peak_mib"]:
        found["memory_share"] = ours["peak_mib"] / official["peak_mib"]
        found["total_memory_share"] = ours["total_mib"] / official["total_mib"]
    if row["mode"] == "train" and not row["dropout"]:
        pairs = zip(ours["losses"], official["losses"], strict=True)
        found["loss_difference"] = max(abs(a - b) / abs(b) for a, b in pairs)
    return found


def _environment() -> dict[str, str]:
    """This process's environment, without settings that reuse compiled programs."""
    return {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}


def _tunables(environment: dict[str, str]) -> str:
    others = environment.get("GLIBC_TUNABLES")
    return f"{others}:{HUGE_PAGES}" if others else HUGE_PAGES


def main() -> None:
    """Runs the requested measurements, or prints the table of earlier ones."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ",".join(cases.CASES)
    parser.add_argument(
        "--cases",
        type=options.names(cases.CASES),
        default=["nbody", "enso"],
        help=known,
    )
    parser.add_argument("--modes", type=options.names(MODES), default=list(MODES))
    parser.add_argument(
        "--batch", type=options.positive, default=2, help="examples per batch"
    )
    parser.add_argument(
        "--rounds", type=options.positive, default=5, help="measured calls"
    )
    parser.add_argument(
        "--devices",
        type=options.positive,
        help="CPU devices for ours; default: the most that divide the batch",
    )
    parser.add_argument("--peer", type=pathlib.Path, help="folder of the official code")
    parser.add_argument("--peer-huge-pages", action="store_true")
    parser.add_argument(
        "--compile",
        type=options.names(COMPILE_MODES),
        default=[],
        help=f"modes of torch.compile: {','.join(COMPILE_MODES)} (the last: each block "
        "of layers by itself, in the default mode)",
    )
    parser.add_argument("--no-dropout", action="store_true", help="train without it")
    parser.add_argument(
        "--scan-blocks", action="store_true", help="ours: run equal blocks as a loop"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, help="JSON file; a .md file is written next to it"
    )
    written = report.written("ours", "multiply_adds")
    parser.add_argument(
        "--table", type=written, nargs="+", help="earlier JSON files of a machine"
    )
    a = parser.parse_args()
    if a.table:
        try:
            print(report.earthformer(report.joined(a.table)))
        except ValueError as error:
            parser.error(f"--table: {error}")
        return
    if a.peer and not (a.peer / "earthformer").is_dir():
        parser.error(f"--peer={a.peer} holds no package `earthformer`; give its src")
    if a.devices and a.batch % a.devices:
        parser.error(f"--devices={a.devices} must divide --batch={a.batch}")
    try:
        Benchmark(a).run()
    except DisagreementError as error:
        raise SystemExit(f"benchmarks/earthformer.py: {error}") from error


if __name__ == "__main__":
    main()
