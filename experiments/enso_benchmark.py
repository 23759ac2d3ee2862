r"""The El Niño benchmark: simple references and networks on the same observed months.

    python experiments/enso_benchmark.py --sst=kaplan_pacific_ssta_1856_2014.nc
    python experiments/enso_benchmark.py --sst=SST.nc --indices=xro_indices_oras5.nc
    python experiments/enso_benchmark.py --indices=xro_indices_oras5.nc   # seconds
    python experiments/enso_benchmark.py --sst=SST.nc --only=references,hybrid
    python experiments/enso_benchmark.py --sst=SST.nc --protocol=NAME --leads=24

Prints its plan, trains each network of `ROWS` through the ordinary command in a workdir
of its own, and compares all forecasts on the same test windows. A row that is done is
not repeated, and the same command resumes an interrupted one. Writes into --workdir

    results.json    scores by lead, intervals, and paired differences
    table.md        the table of docs/enso.md
    skill.png       correlation by lead

With --indices it also compares forecasts from climate indices, cross-validated
(`statistics.index_references`): the protocol `enso-oras5-xro`.

    --scale=test    half a minute a row, to check that everything runs
    --scale=quick   at most 40 minutes on two CPU cores (default)
    --scale=paper   networks of the paper's size; needs an accelerator

Intervals hold the central 90 % of 1,000 samples of a bootstrap of blocks of 36
successive starts. Differences are paired: both forecasts are scored on the same
samples. The strongest linear reference is the one with the highest mean correlation on
the test windows themselves, which favours the reference.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from enso_tables import LABELS, MEAN_LEADS, figure, table

from earthformer_jax import plotting
from earthformer_jax.data.readers import indices as index_files
from earthformer_jax.metrics import bootstrap, index_skill
from earthformer_jax.metrics.enso import three_month_mean
from earthformer_jax.reports import scoring
from earthformer_jax.statistics import index_references, withholding, xro

ROOT = pathlib.Path(__file__).parents[1]
PROTOCOL = "enso-kaplan-1985-2014"
INDEX_PROTOCOL = "enso-oras5-xro"
STORED = "skill.nc"  # in the workdir of a row: the index of every window
LEVEL, SAMPLES, BLOCK, SEED = 0.9, 1000, withholding.BLOCK, 0
SCALES = ("test", "quick", "paper")
SEEDS = {"test": 2, "quick": 5, "paper": 5}

LINEAR = (
    "damped_persistence",
    "lim",
    "lim_memory",
    "lim_field_memory",
    "lim_hidden",
    "oscillator",
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A training of the benchmark.

    Attributes:
        variant: of configs/enso.py; "{scale}" stands for the scale.
        minutes: that it takes at --scale=quick on two CPU cores, about.
        changes: of the config, at every scale.
        quick: further ones at --scale=quick.
        members: whether it is an average over `SEEDS` seeds, and as many folds.
    """

    variant: str
    minutes: float
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    quick: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    members: bool = False


# All settings of the rows; everything else is that of the variant in configs/enso.py.
ROWS = {
    # Nothing is trained: every scores.json has the references.
    "references": Row("test,persistence", 1),
    "unet": Row("{scale},unet", 2),
    "conv_lstm": Row("{scale},conv_lstm", 6),
    "earthformer": Row("{scale}", 4),
    # Every member validates on another block of the training period, and stops early;
    # months that a linear system simulates would teach it what its base knows.
    "hybrid": Row(
        "{scale}",
        15,
        {
            "model.base": "lim_field_memory",
            "data.memory": True,
            "data.calendar": True,
            "train.simulated_steps": 0,
            "train.simulated_fraction": 0.0,
        },
        {
            "train.steps": 200,
            "train.validate_every": 25,
            "train.early_stop_patience": 3,
            "optim.lr": 1e-3,
        },
        members=True,
    ),
}
# The networks of the paper's size see what those of the small variants see.
_LIKE_QUICK = {"data.normalization": "anomaly", "data.calendar": True}


def command(name: str, given: argparse.Namespace) -> list[str]:
    """The ordinary training command of a row."""
    row = ROWS[name]
    changes = {"data.path": given.sst, "data.protocol": given.protocol}
    if given.leads:
        changes["data.out_len"] = given.leads
    if given.scale == "paper":
        changes |= _LIKE_QUICK
    changes |= row.changes
    if given.scale == "quick":
        changes |= row.quick
    if row.members:
        changes["model.ensemble"] = changes["data.folds"] = SEEDS[given.scale]
    config = ROOT / "configs" / "enso.py"
    return [
        *(sys.executable, "-m", "earthformer_jax.main"),
        f"--config={config}:{row.variant.format(scale=given.scale)}",
        f"--workdir={given.workdir / name}",
        *(f"--config.{field}={value}" for field, value in changes.items()),
    ]


def done(name: str, given: argparse.Namespace) -> bool:
    """Whether a row was trained and scored with these settings.

    Raises:
        SystemExit: if it was begun with others.
    """
    folder = given.workdir / name
    kept, now = folder / "command.json", command(name, given)[1:]
    if kept.exists() and (then := json.loads(kept.read_text())) != now:
        changed = sorted(set(now) ^ set(then))
        raise SystemExit(
            f"{folder} was begun with other settings: {', '.join(changed)}; use "
            "another --workdir, or the same settings to continue"
        )
    return (folder / "scores.json").exists() and (folder / STORED).exists()


def execute(words: Sequence[str], log: pathlib.Path) -> int:
    """Runs a command and returns its exit status; Ctrl-C and SIGTERM reach it, too."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with log.open("a") as file:
        file.write(f"\n$ {shlex.join(words)}\n")
        file.flush()
        process = subprocess.Popen(words, stdout=file, stderr=file, env=environment)

        def end(*_):
            process.terminate()

        # Ctrl-C in a terminal reaches the process by itself.
        handlers = {signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: end}
        before = {each: signal.signal(each, do) for each, do in handlers.items()}
        try:
            return process.wait()
        finally:
            for each, do in before.items():
                signal.signal(each, do)


def train(name: str, given: argparse.Namespace) -> None:
    """Trains and scores a row, or resumes it.

    Raises:
        SystemExit: if it was interrupted, or failed.
    """
    folder = given.workdir / name
    folder.mkdir(parents=True, exist_ok=True)
    words, log = command(name, given), folder / "log.txt"
    status = execute(words, log)
    if folder.joinpath("config.json").exists():  # it was accepted
        (folder / "command.json").write_text(json.dumps(words[1:], indent=1))
    if status:
        interrupted = status in (143, -signal.SIGTERM, -signal.SIGINT)
        tail = "" if interrupted else "\n" + "".join(log.read_text()[-1500:])
        what = (
            "was interrupted; the same command resumes it"
            if interrupted
            else (f"failed with exit status {status}; see {log}")
        )
        raise SystemExit(f"{name} {what}{tail}")


@dataclasses.dataclass(frozen=True, eq=False)
class Forecasts:
    """Forecasts of the same windows.

    Attributes:
        index: by name, `[n, k]` monthly Niño3.4 in K.
        observed: `[n, k]`, NaN where unknown.
        squared_error: by name, `[n]` mean over map and leads in K^2; {} if unknown.
    """

    index: Mapping[str, np.ndarray]
    observed: np.ndarray
    squared_error: Mapping[str, np.ndarray]


def read(given: argparse.Namespace, names: Sequence[str]) -> Forecasts:
    """The forecasts of rows that are done, and the references of the first of them.

    Raises:
        SystemExit: if rows were not scored on the same windows, or these do not start
            in successive months.
    """
    index, errors, observed = {}, {}, None
    for name in names:
        with xr.open_dataset(given.workdir / name / STORED) as stored:
            found = stored.isel(region=0)[
                ["index", "observed_index", "squared_error", "start_month"]
            ].astype(np.float64)
            found.load()
        if np.any(np.diff(found["start_month"].values) % 12 != 1):
            raise SystemExit(
                f"--protocol={given.protocol}: the test windows do not start in "
                "successive months, which the intervals need; use the scores.json of "
                "each training"
            )
        truth = found["observed_index"].values
        observed = truth if observed is None else observed
        if not np.array_equal(observed, truth, equal_nan=True):
            raise SystemExit(f"{name} was scored on other windows than {names[0]}")
        for of in map(str, found["forecast"].values):
            row = name if of == "model" else of
            if row != "references" and row not in index:
                index[row] = found["index"].sel(forecast=of).values
                errors[row] = found["squared_error"].sel(forecast=of).values
    assert observed is not None
    order = list(dict.fromkeys([*(name for name in LABELS if name in index), *index]))
    return Forecasts({name: index[name] for name in order}, observed, errors)


def compare(forecasts: Forecasts, linear: Sequence[str]) -> dict[str, Any]:
    """Scores with intervals, and paired differences to the strongest of `linear`.

    Returns:
        {"strongest": name, "windows": n, "rows": {name: {score: value or list by lead,
        score + "_interval": [low, high], ...}}}. Scores are "correlation", "rmse",
        "correlation_mean" over the first leads, "c_nino34_m" of three-month means, and
        "mse" where it is known; "correlation_minus", "correlation_mean_minus" and
        "mse_minus" are the score less that of the strongest linear reference.
    """
    names, observed = list(forecasts.index), forecasts.observed
    index = np.stack([forecasts.index[name] for name in names])
    counts = bootstrap.draw(len(observed), BLOCK, SAMPLES, SEED)
    correlation = index_skill.correlation(counts, index, observed)
    scores = {
        "correlation": correlation,
        "rmse": index_skill.rmse(counts, index, observed),
        "correlation_mean": np.mean(correlation[..., :MEAN_LEADS], axis=-1),
        "c_nino34_m": np.mean(
            index_skill.correlation(
                counts, three_month_mean(index), three_month_mean(observed)
            ),
            axis=-1,
        ),
    }
    if forecasts.squared_error:
        errors = np.stack([forecasts.squared_error[name] for name in names])
        scores["mse"] = index_skill.mean(counts, errors[..., None])[..., 0]
    mean = scores["correlation_mean"][0]
    candidates = [name for name in linear if name in names]
    strongest = max(candidates, key=lambda name: mean[names.index(name)], default="")
    if strongest:
        at = names.index(strongest)
        for key in ("correlation", "correlation_mean", "mse"):
            if key in scores:
                value = scores[key]
                scores[f"{key}_minus"] = value - value[:, at : at + 1]
    rows = {}
    for i, name in enumerate(names):
        rows[name] = {"label": LABELS.get(name, name)}
        for key, value in scores.items():
            rows[name][key] = value[0, i].tolist()
            rows[name][f"{key}_interval"] = bootstrap.interval(
                value[:, i], LEVEL
            ).tolist()
    return {"strongest": strongest, "windows": len(observed), "rows": rows}


def members(given: argparse.Namespace, name: str) -> dict[str, list[float]]:
    """Scores of the single members of a row that is an average of seeds."""
    scores = json.loads((given.workdir / name / "scores.json").read_text())
    keys = ("correlation_mean", "mse")
    return {key: [one[key] for one in scores["members"]] for key in keys}


def compare_indices(given: argparse.Namespace) -> dict[str, Any]:
    """Forecasts from climate indices, cross-validated."""
    found = index_files.read(given.indices, xro.INDICES, "--indices")
    leads = given.leads or withholding.LEADS
    forecasts = index_references.forecasts(
        found.values, found.first_month, found.names, leads=leads
    )
    observed = withholding.matching(
        found.values[:, xro.INDICES.index(xro.NINO34)], leads
    )
    results = compare(Forecasts(forecasts, observed, {}), ("lim_indices",))
    return {"protocol": INDEX_PROTOCOL, "file": found.path.name, **results}


def write(given: argparse.Namespace, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes results.json, table.md and skill.png."""
    scoring.write_json(given.workdir / "results.json", results)
    sections = []
    for part in results.values():
        leads = len(next(iter(part["rows"].values()))["correlation"])
        sections.append(
            f"`{part['protocol']}` on {part['file']}, {part['windows']} windows; "
            "correlation of monthly Niño3.4 by lead in months; in brackets intervals "
            f"of 90 %\n\n{table(part, leads)}\n"
        )
    text = "\n".join(sections)
    (given.workdir / "table.md").write_text(text)
    plotting.save(figure(results), given.workdir / "skill.png")
    print(text, flush=True)


def plan(given: argparse.Namespace, rows: Sequence[str]) -> str:
    """What will be done, and how long it takes."""
    lines, left = [], 0.0
    for name in rows:
        finished = done(name, given)
        state = "done"
        if not finished:
            begun = (given.workdir / name / "checkpoints").exists()
            minutes = ROWS[name].minutes
            left += minutes
            state = "resumes" if begun else "to do"
            state += f", about {minutes:g} min" if given.scale == "quick" else ""
        lines.append(f"  {name:<12} {state}")
    if given.indices:
        lines.append(f"  {'indices':<12} a few seconds")
    time = {
        "test": "half a minute for each row",
        "quick": f"about {left:.0f} minutes on two CPU cores",
        "paper": "hours on an accelerator",
    }[given.scale]
    head = f"{given.protocol}, --scale={given.scale}: {time}, in {given.workdir}"
    return "\n".join(
        [head if rows else f"{INDEX_PROTOCOL}, in {given.workdir}", *lines]
    )


def arguments(given: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The checked command line, and the rows to train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sst", default="", help="monthly SST, as for data.path")
    parser.add_argument("--indices", default="", help="monthly indices, NetCDF")
    parser.add_argument("--protocol", default=PROTOCOL)
    parser.add_argument("--scale", default="quick", choices=SCALES)
    parser.add_argument("--only", default="", help="rows, separated by commas")
    parser.add_argument("--leads", type=int, default=0, help="months to forecast")
    parser.add_argument("--workdir", type=pathlib.Path, default="runs/enso_benchmark")
    found = parser.parse_args(given)
    rows = found.only.split(",") if found.only else list(ROWS)
    if unknown := [name for name in rows if name not in ROWS]:
        parser.error(f"--only={unknown[0]}: expected some of {', '.join(ROWS)}")
    if not found.sst:
        if found.only or not found.indices:
            parser.error("--sst=FILE is missing: monthly sea surface temperature")
        rows = []
    for name in ("sst", "indices"):
        if (path := getattr(found, name)) and not any(
            pathlib.Path().glob(path) if "*" in path else [pathlib.Path(path).exists()]
        ):
            parser.error(f"--{name}={path} does not exist")
    if found.leads and found.leads < 3:
        parser.error(f"--leads={found.leads}: expected at least 3")
    found.workdir = found.workdir.absolute()
    found.sst = found.sst and os.path.abspath(found.sst)
    return found, [name for name in ROWS if name in rows]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    given, rows = arguments(argv)
    print(plan(given, rows), flush=True)
    given.workdir.mkdir(parents=True, exist_ok=True)
    for name in rows:
        if not done(name, given):
            print(f"{name} ...", flush=True)
            train(name, given)
    results = {}
    if rows:
        part = compare(read(given, rows), LINEAR)
        for name in rows:
            if ROWS[name].members:
                part["rows"][name]["members"] = members(given, name)
        file = pathlib.Path(given.sst).name
        results["sst"] = {"protocol": given.protocol, "file": file, **part}
    if given.indices:
        results["indices"] = compare_indices(given)
    write(given, results)


if __name__ == "__main__":
    main()
