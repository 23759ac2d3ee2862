r"""What each loss does to the scores of one network, in one table.

    python experiments/loss_table.py                          # the embedded radar twin
    python experiments/loss_table.py --path=SEVIR             # files in SEVIR's layout
    python experiments/loss_table.py --losses=mse,b_mse --seeds=3

Trains a small UNet on radar images with every loss in turn and two seeds, in a workdir
of its own below --out, and prints and writes table.md: test MSE, CSI by threshold and
their mean, and frequency bias, as means over seeds with half the range between them,
and the references for comparison. All are trained with the same examples in the same
number of steps, and the checkpoint is the one with the best --monitor on the validation
split. A training that is done is not repeated, and an interrupted one resumes.

Files are divided by time, 70, 15 and 15 % of the events. With few events the table says
little: look at the differences between seeds.

    --scale=test     seconds a row, to check that everything runs
    --scale=quick    about half a minute a row on two idle CPU cores (default)
"""

import argparse
import dataclasses
import json
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markdown_table import markdown

from earthformer_jax.data.dataset import Dataset
from earthformer_jax.data.source import Example, Source
from earthformer_jax.data.splits import SPLITS
from earthformer_jax.metrics.precipitation import THRESHOLDS
from earthformer_jax.run.api import load_config
from earthformer_jax.run.parts import example_shapes, load_data, make_model
from earthformer_jax.run.run import Run

SCALES = ("test", "quick")


@dataclasses.dataclass(frozen=True)
class Row:
    """A training of the table.

    Attributes:
        label: of the row.
        changes: of the config.
    """

    label: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


# Everything that differs between the rows. Values of the twin and of SEVIR are from 0
# to 1, so that an error of 0.1 is a large one.
ROWS = {
    "mse": Row("`mse`", {"train.loss": "mse"}),
    "mae": Row("`mae`", {"train.loss": "mae"}),
    "huber": Row(
        "`huber`, delta 0.1", {"train.loss": "huber", "train.loss_delta": 0.1}
    ),
    "pinball": Row(
        "`pinball`, level 0.75", {"train.loss": "pinball", "train.loss_level": 0.75}
    ),
    "b_mse": Row("`b_mse`", {"train.loss": "b_mse"}),
    "b_mse_mae": Row(
        "`b_mse`, absolute 1", {"train.loss": "b_mse", "train.loss_absolute": 1.0}
    ),
    "facl": Row("`facl`", {"train.loss": "facl"}),
    "afcrps": Row(
        "`afcrps`, mean of 8 members",
        {"train.loss": "afcrps", "model.noise": 32, "model.members": 8},
    ),
}
COLUMNS = {
    "mse": "MSE",
    **{f"csi_{t}": f"CSI {t}" for t in THRESHOLDS},
    "csi_m": "CSI-M",
    "bias_m": "bias",
}
# Of the config, by scale.
CHANGES = {
    "test": {},
    "quick": {
        "data.space_step": 12,
        "data.in_len": 7,
        "data.out_len": 6,
        "data.time_step": 2,
        "data.twin_train": 1600,
        "data.twin_validation": 48,
        "data.twin_test": 128,
        "model.features": (8, 16, 32),
        "model.center_features": 32,
        "train.steps": 400,
        "train.validate_every": 100,
        "train.batch_size": 8,
        "train.micro_batch": 8,
    },
}


def config_of(row: Row, seed: int, a: argparse.Namespace) -> Any:
    """The config of a training."""
    changes = dict(CHANGES[a.scale])
    if a.path:
        changes |= {
            "data.path": str(a.path),
            "data.split": "fraction",
            "data.test_until": a.until,
            "data.stride": 1,
            "data.max_missing": 100.0,
            "data.skip_missing_files": True,
        }
    changes |= {"train.monitor": a.monitor, "seed": seed, **row.changes}
    changes["train.monitor_mode"] = "min" if a.monitor in ("mse", "mae") else "max"
    return load_config(f"sevir:{a.scale},unet", changes)


@dataclasses.dataclass(frozen=True)
class Kept:
    """Examples that are made once and kept, for all trainings."""

    source: Source
    made: dict[int, Example] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        if index not in self.made:
            self.made[index] = self.source[index]
        return self.made[index]


def kept_data(config: Any) -> Dataset:
    """The data set of a config, and of every other one with the same data."""
    dataset = load_data(config)
    kept = {split: Kept(getattr(dataset.data, split)) for split in SPLITS}
    return dataclasses.replace(dataset, data=dataclasses.replace(dataset.data, **kept))


def scores_of(
    name: str, seed: int, dataset: Dataset, a: argparse.Namespace
) -> Mapping[str, Any] | None:
    """Test scores of a training, which is done first if need be.

    Returns:
        by forecast, "model" and the references; None if it was interrupted.
    """
    workdir = a.out / f"{name}-{seed}"
    config = config_of(ROWS[name], seed, a)
    shapes = example_shapes(config, dataset)
    run = Run(config, workdir, lambda c: (dataset, make_model(c, *shapes)))
    if not run.train():
        return None
    file = workdir / "scores.json"
    if not file.exists():
        run.evaluate()
    return json.loads(file.read_text())["forecasts"]


def cells(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    """A cell for each column: the mean, and half the range of several seeds."""
    made = []
    for column in COLUMNS:
        values = np.array([s[column] for s in scores])
        digits = 4 if column == "mse" else 2 if column == "bias_m" else 3
        text = f"{values.mean():.{digits}f}"
        if len(values) > 1:
            text += f" ± {np.ptp(values) / 2:.{digits}f}"
        made.append(text)
    return made


def table(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The Markdown table of trainings that are done.

    Args:
        results: by row, the scores of each seed by forecast.
    """
    rows = [
        [ROWS[name].label, *cells([scores["model"] for scores in seeds])]
        for name, seeds in results.items()
    ]
    first = next(iter(results.values()))[0]
    rows += [
        [f"*{name}*", *cells([scores])]
        for name, scores in first.items()
        if name != "model"
    ]
    return markdown(["loss", *COLUMNS.values()], rows) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing and writes the table.

    Returns:
        0; 1 if a training was interrupted, which the same command resumes.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--path", type=pathlib.Path, help="files in SEVIR's layout")
    parser.add_argument("--until", default="", help="last date of the events to use")
    parser.add_argument("--losses", default=",".join(ROWS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--monitor", default="csi_m")
    parser.add_argument("--scale", choices=SCALES, default="quick")
    parser.add_argument("--out", type=pathlib.Path, default="runs/loss_table")
    a = parser.parse_args(arguments)
    names = a.losses.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"--losses={unknown[0]}: expected some of {', '.join(ROWS)}")
    if a.seeds < 1:
        parser.error(f"--seeds={a.seeds}: expected at least 1")
    dataset = kept_data(config_of(ROWS[names[0]], 0, a))
    results: dict[str, list] = {name: [] for name in names}
    for seed in range(a.seeds):
        for name in names:
            scores = scores_of(name, seed, dataset, a)
            if scores is None:
                print("interrupted: the same command resumes")
                return 1
            results[name].append(scores)
            done = {name: seeds for name, seeds in results.items() if seeds}
            (a.out / "table.md").write_text(table(done))
            print(f"{name}, seed {seed}: {cells([scores['model']])}", flush=True)
    print(table(results), flush=True)
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    raise SystemExit(main())
