r"""Do networks beat forecasts of rain that need no training? A table by data set.

    python experiments/radar_rivals.py --workdirs=radar-twin
    python experiments/radar_rivals.py --space_step=1 --windows=16
    python experiments/radar_rivals.py --events=knmi=KNMI.h5,mine=codes.npy

Persistence, extrapolation, S-PROG and the mean of STEPS members (docs/verification.md),
and every trained model of --workdirs, on the test events of the radar twin and on the
events of files: SEVIR's HDF5 files, with "vil" uint8 `[n, h, w, t]`, or arrays uint8
`[n, t, h, w]`; 255 is missing. Windows of 13 input and 12 target frames begin every 12
frames. Scores are those of SEVIR, pooled over lead times, and FSS, with 90 % intervals
from samples of whole events, and the paired difference of each forecast from S-PROG.
Fewer than 4 events give no interval.

Each row is written to OUT/DATA-FORECAST.json with the sums of every event. A row that
is there is not made again; delete it, or choose another --out, after changing a model.
OUT/table.md has all rows of OUT.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence

import h5py
import jax
import numpy as np
from markdown_table import markdown

import earthformer_jax as ef
from earthformer_jax.data.nowcasting.references import references
from earthformer_jax.data.references import persistence
from earthformer_jax.data.sevir.rain import RAIN
from earthformer_jax.data.sevir.twin import RadarTwin
from earthformer_jax.data.sevir.windows import NORMALIZATIONS, Windows
from earthformer_jax.data.task import Forecast
from earthformer_jax.metrics import bootstrap
from earthformer_jax.metrics.precipitation import FULL_SCALE, THRESHOLDS
from earthformer_jax.metrics.scores import categorical, continuous, spatial
from earthformer_jax.metrics.statistics.contingency import Contingency
from earthformer_jax.metrics.statistics.errors import Errors
from earthformer_jax.metrics.statistics.fractions import Fractions
from earthformer_jax.reports import scoring

IN_LEN, OUT_LEN, STRIDE = 13, 12, 12
LEVEL = 1  # of THRESHOLDS, 74: that of the bias and the FSS in the table
WINDOWS = 1, 5  # of the FSS, in pixels
NORMALIZATION = NORMALIZATIONS["01"]
STATISTICS = {
    "errors": Errors(),
    "events": Contingency(THRESHOLDS, scale=FULL_SCALE),
    "fractions": Fractions(THRESHOLDS, WINDOWS, scale=FULL_SCALE),
}
RIVAL = "s_prog"
Sums = Mapping[str, Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Codes:
    """Events in memory, an `EventSource`.

    Attributes:
        codes: uint8 `[n, t, h, w]`.
    """

    codes: Sequence[np.ndarray]

    @property
    def frames(self) -> np.ndarray:
        return np.array([len(event) for event in self.codes])

    @property
    def size(self) -> tuple[int, int]:
        h, w = self.codes[0].shape[1:]
        return h, w

    @property
    def minutes(self) -> set[int]:
        return {5}

    def __len__(self) -> int:
        return len(self.codes)

    def read(self, index: int, frames: slice) -> dict[str, np.ndarray]:
        return {"vil": self.codes[index][frames]}

    def times(self, index: int) -> np.ndarray:
        return np.arange(len(self.codes[index]), dtype=np.int32) * 5


def read_events(path: pathlib.Path) -> np.ndarray:
    """Events of a file, uint8 `[n, t, h, w]`.

    Raises:
        ValueError: if the file holds something else.
    """
    if path.suffix == ".npy":
        codes = np.load(path)
    else:
        with h5py.File(path) as file:
            if "vil" not in file:
                raise ValueError(f"{path} has no `vil`; expected a file of SEVIR")
            codes = np.moveaxis(np.asarray(file["vil"]), -1, 1)
    if codes.ndim != 4 or codes.dtype != np.uint8:
        raise ValueError(
            f"{path} holds {codes.dtype} {list(codes.shape)}; expected uint8 codes of "
            "4 axes"
        )
    return codes


@jax.jit
def terms(forecast, batch):
    """What a batch adds to each statistic, summed over examples and leads."""
    each = {name: x(forecast, batch) for name, x in STATISTICS.items()}
    return jax.tree.map(lambda x: x.sum(axis=(0, 1)), each)


def sums_by_event(windows: Windows, forecast: Forecast) -> dict[str, dict[str, list]]:
    """The sums of a forecast over the windows and leads of each event, by statistic."""
    events = windows.of_event
    total: dict = {}
    for index, event in enumerate(events):
        batch = {key: np.asarray(x)[None] for key, x in windows[index].items()}
        found = jax.device_get(terms(forecast(batch), batch))
        for name, parts in found.items():
            for part, x in parts.items():
                shape = (int(events.max()) + 1, *x.shape)
                kept = total.setdefault(name, {}).setdefault(part, np.zeros(shape))
                kept[event] += x
    return jax.tree.map(np.ndarray.tolist, total)


# Name: the score of sums, and the number of digits in the table.
SCORES: dict[str, tuple[Callable[[Sums], np.ndarray], int]] = {
    "MSE": (lambda x: continuous.mse(x["errors"]), 5),
    **{
        f"CSI {t}": (lambda x, i=i: categorical.csi(x["events"])[..., i, 0], 3)
        for i, t in enumerate(THRESHOLDS[:4])
    },
    "CSI-M": (lambda x: categorical.csi(x["events"], 1e-4).mean(axis=(-1, -2)), 3),
    f"bias {THRESHOLDS[LEVEL]}": (
        lambda x: categorical.frequency_bias(x["events"])[..., LEVEL, 0],
        2,
    ),
    f"FSS {THRESHOLDS[LEVEL]}, {WINDOWS[1]} pixels": (
        lambda x: spatial.fss(x["fractions"])[..., LEVEL, 1],
        3,
    ),
}


def samples(row: Mapping) -> dict[str, np.ndarray]:
    """Each score of all events and of bootstrap samples, `[1 + s]`."""
    count = len(row["sums"]["errors"]["weight"])
    drawn = bootstrap.draw(count, 1)
    total = {
        name: {part: bootstrap.totals(drawn, np.array(x)) for part, x in parts.items()}
        for name, parts in row["sums"].items()
    }
    return {name: function(total) for name, (function, _) in SCORES.items()}


def table(rows: Sequence[Mapping]) -> str:
    """Markdown: scores with intervals, and the difference of MSE from the rival's."""
    parts = []
    for data in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == data]
        count = len(own[0]["sums"]["errors"]["weight"])
        scores = {row["forecast"]: samples(row) for row in own}
        shown = []
        for name, found in scores.items():
            cells = []
            for score, (_, digits) in SCORES.items():
                cells.append(f"{found[score][0]:.{digits}f}")
                low, high = bootstrap.interval(found[score], blocks=max(count, 2))
                if np.isfinite(low):
                    cells[-1] += f" ({low:.{digits}f} to {high:.{digits}f})"
            cells.append("")
            if RIVAL in scores and name != RIVAL:
                pair = found["MSE"], scores[RIVAL]["MSE"]
                gap = bootstrap.paired(*pair, blocks=max(count, 2))
                cells[-1] = f"{gap.value:+.5f}"
                if np.isfinite(gap.p_value):
                    low, high = gap.interval
                    cells[-1] += f" ({low:+.5f} to {high:+.5f})"
            shown.append([f"`{name}`", *cells])
        about = (
            f"**{data}**: {own[0]['windows']} windows of {count} events, "
            f"{own[0]['pixels']} pixels"
        )
        parts += [about, markdown(["", *SCORES, "MSE less that of S-PROG"], shown)]
    return "\n\n".join(parts) + "\n"


def forecasts(workdirs: Sequence[str]) -> dict[str, Callable[[], Forecast]]:
    """How each forecast is made, by name; a model is loaded when it is needed."""
    simple = {
        "persistence": persistence(OUT_LEN, 1),
        **references(IN_LEN, OUT_LEN, 1, NORMALIZATION, RAIN),
    }

    def trained(workdir: str) -> Forecast:
        model = ef.load(workdir)
        return lambda batch: np.asarray(model(batch["inputs"]))

    return {
        **{name: functools.partial(simple.__getitem__, name) for name in simple},
        **{pathlib.Path(w).name: functools.partial(trained, w) for w in workdirs},
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Makes the rows that are missing, and writes the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default="runs/radar_rivals")
    parser.add_argument("--events", default="", help="NAME=FILE,NAME=FILE")
    parser.add_argument("--workdirs", default="", help="names or paths, with commas")
    parser.add_argument("--windows", type=int, default=128, help="of the twin; 0: none")
    parser.add_argument("--space_step", type=int, default=8, help="n x n pixels to one")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    sources: dict[str, Callable[[], tuple[Sequence[np.ndarray], int]]] = {}
    if args.windows:
        twin = RadarTwin(
            "test", args.windows, IN_LEN + OUT_LEN, space_step=args.space_step
        )
        sources["twin"] = lambda: ([twin[i] for i in range(len(twin))], 1)
    for item in filter(None, args.events.split(",")):
        name, _, path = item.partition("=")
        if not path or name in sources:
            parser.error(f"--events={item}: expected NAME=FILE with another name")
        sources[name] = lambda p=path: (
            list(read_events(pathlib.Path(p))),
            args.space_step,
        )
    workdirs = [x for x in args.workdirs.split(",") if x]
    made = forecasts(workdirs)
    if len(made) < len(forecasts([])) + len(workdirs):
        parser.error(
            f"--workdirs={args.workdirs}: the last parts of the paths name the rows; "
            f"expected names that differ, and none of {', '.join(forecasts([]))}"
        )
    for data, read in sources.items():
        codes, step = read()
        windows = Windows(
            Codes(codes),
            IN_LEN,
            OUT_LEN,
            stride=STRIDE,
            space_step=step,
            normalization=NORMALIZATION,
        )
        same = {
            "windows": len(windows),
            "pixels": " x ".join(map(str, windows.size)),
            "crc32": zlib.crc32(np.ascontiguousarray(codes).tobytes()),
        }
        for name, make in made.items():
            path = args.out / f"{data}-{name}.json"
            if path.exists():
                kept = json.loads(path.read_text())
                if any(kept[key] != value for key, value in same.items()):
                    raise ValueError(f"{path} is of other data; choose another --out")
                continue
            row = {"data": data, "forecast": name, **same}
            row["sums"] = sums_by_event(windows, make())
            scoring.write_json(path, row)
            print(path, flush=True)
    rows = [json.loads(path.read_text()) for path in args.out.glob("*.json")]
    order = {name: i for i, name in enumerate(made)}
    rows.sort(key=lambda x: (x["data"], order.get(x["forecast"], len(order))))
    text = table(rows)
    (args.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
