r"""Earthformers on a GPU, in one run of at most eight minutes.

    python benchmarks/gpu.py --out gpu.json
    python benchmarks/gpu.py --out gpu.json --peer earth-forecasting-transformer/src
    JAX_PLATFORMS=cpu python benchmarks/gpu.py --out test.json --scale=test

Parts, each in a process of its own and with a share of the time (`SHARES`):

- numbers: forecasts and gradients against those of a CPU;
- ours: forward pass and training step (dropout, squared error, gradient, clipping,
  AdamW) of ENSO, N-body and SEVIR in float32, tf32 and bfloat16: time, memory, share of
  the rate of large products; then once more with the functions that are tuned on CPUs;
- attention: what computes attention in cuboids fastest, by shape;
- theirs: the official code in PyTorch, as it comes and by `torch.compile`, if PyTorch
  and the package (folder --peer) are there;
- layers: single layers, as shares of what products and memory allow;
- flags: the N-body step of `ours` under settings of XLA (`FLAGS`).

The JSON file is written after every part, with all rows until then. A part that fails
or takes too long keeps the rows it had, and the next one starts. A Markdown table is
written next to the file. Nothing else should use the GPU meanwhile. `--scale=test` runs
everything in a minute on any device, to check that it runs.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping

ROOT = pathlib.Path(__file__).parents[1]
sys.path[0] = str(ROOT)

from benchmarks import gpu_parts, machine, report  # noqa: E402

# Of the time that is left when a part starts: what a part does not use, others get.
SHARES = {
    "numbers": 0.15,
    "ours": 0.45,
    "attention": 0.3,
    "theirs": 0.6,
    "layers": 0.6,
    "flags": 1.0,
}
FLAGS = (
    "--xla_gpu_enable_latency_hiding_scheduler=true",
    "--xla_gpu_enable_triton_gemm=false",
    "--xla_gpu_autotune_level=0",
)
FLAGS_CASES = {"nbody": 16}
GRACE_S = 5  # beyond the time of a part: for the program that runs


class Benchmark:
    """The settings of a run, and its results so far."""

    def __init__(self, a: argparse.Namespace):
        self.a = a
        self.until = time.time() + a.minutes * 60
        self.report: dict = dict(
            machine=machine.describe() | dict(versions={}),
            setting=dict(scale=a.scale, minutes=a.minutes, parts=a.parts),
            parts={},
        )

    def run(self) -> None:
        """Runs all parts, and writes what they found after each."""
        for part in self.a.parts:
            if part == "flags":
                for flag in FLAGS if self.a.scale == "paper" else ("",):
                    self.part("ours", flag, name=f"flags {flag}".strip())
            else:
                self.part(part)
            self.write()

    def part(self, part: str, flag: str = "", name: str = "") -> None:
        """Runs one part in a process; its rows, and how it ended, are kept."""
        start = time.time()
        left = self.until - start
        found = dict(rows=[], seconds=0.0, ended="not started: the time is over")
        self.report["parts"][name or part] = found
        if left <= GRACE_S:
            return
        limit = (left - GRACE_S) * SHARES["flags" if name else part]
        options = dict(part=part, until=start + limit, scale=self.a.scale)
        options |= dict(peer=self.a.peer, few=bool(name))
        environment = dict(os.environ)
        if flag:
            flags = f"{environment.get('XLA_FLAGS', '')} {flag}"
            environment["XLA_FLAGS"] = flags.strip()
        command = [sys.executable, __file__, "--options", json.dumps(options)]
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(
                command, stdout=out, stderr=log, env=environment, start_new_session=True
            )
            try:
                code = process.wait(limit + GRACE_S)
                found["ended"] = "well" if code == 0 else f"with exit status {code}"
            except subprocess.TimeoutExpired:
                found["ended"] = f"stopped after {limit + GRACE_S:.0f} s"
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            out.seek(0)
            log.seek(0)
            found["rows"] = rows_of(out)
            if found["ended"] != "well":
                found["log"] = log.read()[-2000:]
        found["seconds"] = time.time() - start
        print(
            f"{name or part}: {len(found['rows'])} rows in {found['seconds']:.0f} s, "
            f"ended {found['ended']}",
            flush=True,
        )

    def write(self) -> None:
        """Writes the JSON file, whole or not at all, and the table."""
        report.write(self.a.out, self.report, text(self.report))


def rows_of(lines: Iterable[str]) -> list[dict]:
    """Rows that a part has printed; a line that it did not finish is left out."""
    found = []
    for line in lines:
        if line.startswith("{") and line.endswith("}\n"):
            found.append(json.loads(line))
    return found


def text(found: Mapping) -> str:
    """The report as Markdown."""
    parts = found["parts"]
    lines = [report.machine_line(found["machine"]), ""]
    for name, part in parts.items():
        lines.append(f"- {name}: {part['seconds']:.0f} s, ended {part['ended']}")

    def rows_with(part, key):
        return [row for row in parts.get(part, {}).get("rows", ()) if key in row]

    rows = [
        row | dict(settings=name)
        for name in parts
        if name == "ours" or name.startswith("flags")
        for row in rows_with(name, "case")
    ]
    others = rows_with("theirs", "case")
    lines += ["", _speed(rows, others), ""]
    if of_attention := rows_with("attention", "fastest"):
        columns = {
            key: lambda row, key=key: row[key]
            for key in ("case", "name", "dtype", "direction", "fastest")
        }
        lines += [report.table(columns, of_attention), ""]
    if of_numbers := rows_with("numbers", "forecast"):
        columns = {
            "case": lambda row: row["case"],
            "type": lambda row: row["type"],
            "forecast: difference to a CPU": lambda row: f"{row['forecast']:.1e}",
            "gradient": lambda row: f"{row['gradient']:.1e}",
        }
        lines += [report.table(columns, of_numbers), ""]
    return "\n".join(lines)


def _speed(rows: list[dict], others: list[dict]) -> str:
    """Ours, and how many times as long the official code takes."""
    same = ("case", "mode", "type")

    def times(compiled):
        def cell(row):
            for other in others:
                if all(other[key] == row[key] for key in same):
                    if other["compiled"] == compiled and "seconds" in other:
                        if "seconds" in row:
                            return f"{other['seconds'] / row['seconds']:.2f}"
            return None

        return cell

    columns = {
        **{key: lambda row, key=key: row[key] for key in (*same, "batch")},
        "functions": lambda row: row["functions"],
        "settings": lambda row: row["settings"],
        "s": lambda row: report.seconds(row.get("seconds")),
        "MiB": lambda row: report.number("{:,.0f}", row.get("mib")),
        "GFLOP/s": lambda row: report.number("{:,.0f}", row.get("gflops")),
        "share": lambda row: report.number("{:.0%}", row.get("share")),
        "official / ours": times(False),
        "compiled official / ours": times(True),
    }
    return report.table(columns, rows)


def _run_part(options: Mapping) -> None:
    """Runs a part in this process; prints a line of JSON for each row."""
    scale = dict(gpu_parts.SCALES[options["scale"]])
    if options["few"]:
        known = FLAGS_CASES if options["scale"] == "paper" else scale["cases"]
        modes = ("train",) if options["scale"] == "paper" else ("forward",)
        scale |= dict(cases=known, types=("bfloat16",), modes=modes)
    setting = gpu_parts.Setting(**scale, peer=options["peer"], until=options["until"])
    for row in gpu_parts.PARTS[options["part"]](setting):
        print(json.dumps(row), flush=True)


def main() -> None:
    """Runs the measurements requested on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, help="JSON file; .md next to it")
    parser.add_argument("--parts", nargs="+", choices=SHARES, default=[*SHARES])
    parser.add_argument("--scale", choices=gpu_parts.SCALES, default="paper")
    parser.add_argument("--minutes", type=float, default=7.5, help="in all")
    parser.add_argument("--peer", default="", help="folder of the official package")
    parser.add_argument("--options", type=json.loads, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.options:
        _run_part(a.options)
    elif a.out is None:
        parser.error("--out=FILE.json is needed: results are written as they come")
    else:
        Benchmark(a).run()


if __name__ == "__main__":
    main()
