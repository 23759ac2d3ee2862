r"""The time and the skill of forecasts of rain that need no training.

    python benchmarks/nowcasting.py
    python benchmarks/nowcasting.py --events knmi=knmi.npy mrms=mrms.npy --stride 12

Every reference forecast of rain (`data.nowcasting.references`), for windows of 13
input and 12 target frames, one at a time. Times are those of a window: what the first
takes longer ("compile"), then the median by the clock ("run") and of all cores ("CPU").
The scores are those of SEVIR at each lead: mean squared errors of code / 255, and CSI,
the mean over six thresholds.

Events are arrays uint8 `[n, t, h, w]` of codes, 255 for missing; without any, they are
those of the radar twin.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Sequence

sys.path[0] = str(pathlib.Path(__file__).parents[1])

import jax  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks import machine, report  # noqa: E402
from earthformer_jax.data.nowcasting.references import references  # noqa: E402
from earthformer_jax.data.references import persistence  # noqa: E402
from earthformer_jax.data.sevir.rain import RAIN  # noqa: E402
from earthformer_jax.data.sevir.twin import RadarTwin  # noqa: E402
from earthformer_jax.data.sevir.windows import (  # noqa: E402
    MISSING,
    NORMALIZATIONS,
    code_table,
)
from earthformer_jax.data.source import Batch  # noqa: E402
from earthformer_jax.data.task import Forecast  # noqa: E402
from earthformer_jax.metrics.precipitation import RainScores  # noqa: E402

IN_LEN, OUT_LEN = 13, 12
NORMALIZATION = NORMALIZATIONS["01"]
LEADS = (1, 3, 6, 12)  # in the table


def windows(events: np.ndarray, stride: int) -> list[dict[str, np.ndarray]]:
    """Batches of one window each, cut from events of codes."""
    found = []
    for event in events:
        for start in range(0, len(event) - IN_LEN - OUT_LEN + 1, stride):
            codes = event[start : start + IN_LEN + OUT_LEN, ..., None][None]
            values, known = code_table(NORMALIZATION)[codes], codes != MISSING
            found.append(
                dict(
                    inputs=values[:, :IN_LEN],
                    targets=values[:, IN_LEN:],
                    inputs_observed=known[:, :IN_LEN],
                    observed=known[:, IN_LEN:],
                )
            )
    return found


def alone(name: str) -> Forecast:
    """A forecast that finds the motion itself, which the references share."""

    def forecast(batch: Batch) -> np.ndarray:
        return references(IN_LEN, OUT_LEN, 1, NORMALIZATION, RAIN)[name](batch)

    return forecast


def measure(
    name: str, events: np.ndarray, stride: int, rounds: int, names: Sequence[str]
) -> list[dict]:
    """One row for each forecast: its times, and its scores by lead."""
    batches = windows(events, stride)
    if not batches:
        raise SystemExit(
            f"{name}: events of {events.shape[1]} frames; expected at least "
            f"{IN_LEN + OUT_LEN}"
        )
    forecasts = {"persistence": persistence(OUT_LEN, 1)}
    forecasts |= {name: alone(name) for name in names}
    metric = RainScores(scale=NORMALIZATION.scale, offset=NORMALIZATION.offset)
    update = jax.jit(metric.update)
    rows = []
    for label, forecast in forecasts.items():
        start = time.perf_counter()
        forecast(batches[0])
        first = time.perf_counter() - start
        clock, cores = [], []
        for turn in range(rounds):
            start, used = time.perf_counter(), time.process_time()
            forecast(batches[turn % len(batches)])
            clock.append(time.perf_counter() - start)
            cores.append(time.process_time() - used)
        state = metric.init()
        for batch in batches:
            state = update(state, forecast(batch), batch)
        scores = metric.compute(state)
        rows.append(
            dict(
                data=name,
                windows=len(batches),
                forecast=label,
                compile_s=first - statistics.median(clock),
                run_s=statistics.median(clock),
                cpu_s=statistics.median(cores),
                mse=scores["mse_by_lead"],
                csi=scores["csi_by_lead"],
            )
        )
    return rows


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""

    def at(key: str, lead: int, form: str):
        return lambda row: form.format(row[key][lead - 1])

    columns = {
        "data": lambda row: f"{row['data']} ({row['windows']})",
        "forecast": lambda row: row["forecast"],
        "compile, s": lambda row: report.seconds(row["compile_s"]),
        "run, s": lambda row: report.seconds(row["run_s"]),
        "CPU, s": lambda row: report.seconds(row["cpu_s"]),
    }
    for lead in LEADS:
        columns[f"MSE +{lead}"] = at("mse", lead, "{:.4f}")
    for lead in LEADS:
        columns[f"CSI-M +{lead}"] = at("csi", lead, "{:.3f}")
    return report.table(columns, rows)


def main() -> None:
    """Measures the forecasts and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", nargs="+", default=[], metavar="NAME=FILE.npy")
    known = [*references(IN_LEN, OUT_LEN, 1, NORMALIZATION, RAIN)]
    parser.add_argument("--forecasts", nargs="+", choices=known, default=known)
    parser.add_argument("--stride", type=int, default=12, help="frames")
    parser.add_argument("--twin", type=int, default=6, help="events of the twin")
    parser.add_argument("--rounds", type=int, default=5, help="timed calls")
    parser.add_argument("--output", type=pathlib.Path, help="also write JSON")
    a = parser.parse_args()
    rows = []
    for text in a.events:
        name, _, path = text.partition("=")
        if not path:
            parser.error(f"--events {text}: expected NAME=FILE.npy")
        rows += measure(name, np.load(path), a.stride, a.rounds, a.forecasts)
    if not a.events:
        twin = RadarTwin("validation", a.twin, IN_LEN + OUT_LEN)
        events = np.stack([twin[i] for i in range(len(twin))])
        rows += measure("twin", events, a.stride, a.rounds, a.forecasts)
    print(report.machine_line(machine.describe()))
    print(table(rows))
    if a.output:
        a.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
