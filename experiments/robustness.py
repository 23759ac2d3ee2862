r"""Are embeddings of FAConvLSTM stable, interpretable and robust? Measured.

    python experiments/robustness.py --scale=test            # does everything run?
    python experiments/robustness.py                         # the embedded climate twin
    python experiments/robustness.py --path=ncep.nc --clusters=7 --anomalies

Trains the autoencoders of `embedding.py` (ConvLSTM, FAConvLSTM of equal width, with
equal parameters, and for an equal time), with several seeds, and writes table.md and
table.json. Regimes are k-means clusters of embeddings, fitted to training days; all
numbers are those of test days.

    stable         embeddings and regimes of two seeds: linear CKA (1: equal up to
                   rotation and scale) and adjusted Rand index (1: equal, 0: chance);
                   and of two training periods, the earlier and the later half of the
                   years ("years")
    robust         what noise in the inputs (in standard deviations of a variable) and
                   a missing variable (its mean instead; mean over variables, and the
                   worst) do: the root mean square change of an embedding, relative to
                   the spread of embeddings, and the Rand index of regimes before and
                   after
    interpretable  the Rand index of regimes and the seasons (quarters from December
                   on), and balanced accuracy of a linear classifier for the season
                   (chance: 0.25); the head of both cells is told the date

Principal components, as many as an embedding has features, are the simple reference: a
network that is no better has no advantage. A training that is done is not repeated;
other data, steps or clusters need another --out.
"""

import argparse
import copy
import dataclasses
import itertools
import logging
import pathlib
from collections.abc import Callable, Sequence

import embedding as autoencoders
import numpy as np
from paper.runs import Mismatch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from earthformer_jax.data.dataset import Dataset
from earthformer_jax.data.source import Batch
from earthformer_jax.data.splits import SPLITS
from earthformer_jax.data.task import EmbedSeries
from earthformer_jax.metrics import clusters as cluster_lib
from earthformer_jax.reports import embedding as report
from earthformer_jax.reports import scoring
from earthformer_jax.run import compilation_cache
from earthformer_jax.run.parts import build

SCALES = ("test", "quick")
NOISE = (0.1, 0.3, 1.0)
COMPONENTS = "principal components"
TRAIN, TEST = SPLITS.index("train"), SPLITS.index("test")
COLUMNS = (
    ("parameters", "parameters", "{:,.0f}"),
    ("steps", "steps", "{:.0f}"),
    ("mse", "test MSE", "{:.3f}"),
    ("seeds_cka", "seeds: CKA", "{:.2f}"),
    ("seeds_rand", "seeds: Rand", "{:.2f}"),
    ("years_cka", "years: CKA", "{:.2f}"),
    ("years_rand", "years: Rand", "{:.2f}"),
    *((f"noise_{x}", f"noise {x}: change", "{:.2f}") for x in NOISE),
    *((f"noise_{x}_rand", f"noise {x}: Rand", "{:.2f}") for x in NOISE),
    ("missing", "missing: change", "{:.2f}"),
    ("missing_worst", "worst", "{:.2f}"),
    ("missing_rand", "missing: Rand", "{:.2f}"),
    ("season_rand", "season: Rand", "{:.2f}"),
    ("season_probe", "season: probe", "{:.2f}"),
)

Embed = Callable[[Batch], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Changed:
    """A series whose inputs are changed; the targets stay what they are.

    Attributes:
        source: of windows.
        change: from the variables `[t, h, w, c]` of window i to others.
        variables: number of channels before those of the calendar.
    """

    source: report.SeriesSource
    change: Callable[[int, np.ndarray], np.ndarray]
    variables: int

    @property
    def frame_count(self) -> int:
        """Frames of the series."""
        return self.source.frame_count

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int):
        example = dict(self.source[index])
        inputs = np.array(example["inputs"])
        inputs[..., : self.variables] = self.change(
            index, inputs[..., : self.variables]
        )
        return example | {"inputs": inputs}


def noisy(strength: float, spread: np.ndarray, seed: int = 0):
    """A change that adds noise of `strength` times the `spread` of each variable."""

    def change(index: int, fields: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng((seed, index))
        noise = rng.standard_normal(fields.shape, np.float32)
        return fields + strength * spread.astype(np.float32) * noise

    return change


def without(variable: int, mean: np.ndarray):
    """A change that puts the mean in place of a variable."""

    def change(index: int, fields: np.ndarray) -> np.ndarray:
        changed = fields.copy()
        changed[..., variable] = mean[variable]
        return changed

    return change


def cka(a: np.ndarray, b: np.ndarray) -> float:
    """Linear CKA of two embeddings `[n, d]` and `[n, e]` of the same days.

    Reference:
        Kornblith et al. 2019, Similarity of neural network representations revisited.
    """
    a, b = (np.asarray(x, np.float64) - np.mean(x, axis=0) for x in (a, b))
    size = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    return float(np.linalg.norm(a.T @ b) ** 2 / size) if size else float("nan")


def relative_change(before: np.ndarray, after: np.ndarray) -> float:
    """Root mean square change of `[n, d]`, in units of their spread."""
    spread = np.sum((before - before.mean(axis=0)) ** 2)
    return float(np.sqrt(np.sum((after - before) ** 2) / spread))


def seasons_of(dates: np.ndarray) -> np.ndarray:
    """0 .. 3 from December to November, of datetime64 `[n]`."""
    months = dates.astype("datetime64[M]").astype(int) % 12 + 1
    return months % 12 // 3


@dataclasses.dataclass(frozen=True, eq=False)
class Embedded:
    """What one embedding makes of the whole series.

    Attributes:
        series: its frames, with embeddings.
        regimes: int `[n]`.
    """

    series: report.Series
    regimes: np.ndarray

    def at(self, split: int) -> np.ndarray:
        """Where the frames of a split are, bool `[n]`."""
        return self.series.split == split


def embedded(series: report.Series, clusters: int, like=None) -> Embedded:
    """Regimes of a series.

    Args:
        series: with embeddings.
        clusters: number of regimes.
        like: an embedding by the same network; then each day gets the regime whose
            centre in it is the nearest.
    """
    points = series.embeddings
    if like is None:
        fit = series.split == TRAIN
        return Embedded(series, cluster_lib.k_means(points, clusters, 0, fit=fit))
    centres = np.stack(
        [
            like.series.embeddings[(like.regimes == k) & like.at(TRAIN)].mean(axis=0)
            for k in range(clusters)
        ]
    )
    distances = np.linalg.norm(points[:, None] - centres, axis=-1)
    return Embedded(series, distances.argmin(axis=1))


def perturbed(a, dataset, embed: Embed, clean: Embedded) -> dict[str, float]:
    """What noise and missing variables do to one embedding."""
    variables = dataset.data.example()["targets"].shape[-1]
    training = clean.series.split[clean.series.kept] == TRAIN
    fields = clean.series.fields[training]
    mean, spread = fields.mean(axis=(0, 1, 2)), fields.std(axis=(0, 1, 2))
    test = clean.at(TEST)
    base = embedded(clean.series, a.clusters, clean)

    def measure(change) -> tuple[float, float]:
        source = Changed(series_source(dataset), change, variables)
        found = report.gather(source, embed, a.batch_size)
        after = embedded(found, a.clusters, clean)
        moved = relative_change(clean.series.embeddings[test], found.embeddings[test])
        return moved, cluster_lib.agreement(after.regimes[test], base.regimes[test])

    result = {}
    for strength in NOISE:
        moved, rand = measure(noisy(strength, spread))
        result |= {f"noise_{strength}": moved, f"noise_{strength}_rand": rand}
    moved, rand = np.transpose([measure(without(c, mean)) for c in range(variables)])
    return result | dict(
        missing=float(moved.mean()),
        missing_worst=float(moved.max()),
        missing_rand=float(rand.mean()),
    )


def seasonal(found: Embedded) -> dict[str, float]:
    """How much of the calendar regimes and embeddings hold; nothing without dates."""
    if found.series.dates is None:
        return {}
    season = seasons_of(found.series.dates)
    train, test = found.at(TRAIN), found.at(TEST)
    if len(np.unique(season[train])) < 2:
        return {}
    classify = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    classify.fit(found.series.embeddings[train], season[train])
    read = classify.predict(found.series.embeddings[test])
    truth = season[test]
    recalls = [np.mean(read[truth == k] == k) for k in np.unique(truth)]
    return dict(
        season_rand=cluster_lib.agreement(found.regimes[test], truth),
        season_probe=float(np.mean(recalls)),
    )


def alike(name: str, several: Sequence[Embedded]) -> dict[str, float]:
    """Agreement of every two embeddings on test days; nothing for a single one."""
    pairs = list(itertools.combinations(several, 2))
    if not pairs:
        return {}
    of_test = [
        tuple((x.series.embeddings[x.at(TEST)], x.regimes[x.at(TEST)]) for x in pair)
        for pair in pairs
    ]
    return {
        f"{name}_cka": float(np.mean([cka(p[0], q[0]) for p, q in of_test])),
        f"{name}_rand": float(
            np.mean([cluster_lib.agreement(p[1], q[1]) for p, q in of_test])
        ),
    }


def series_source(dataset: Dataset) -> report.SeriesSource:
    """The whole series of a data set that is to be embedded."""
    assert isinstance(dataset.task, EmbedSeries)
    return dataset.task.series


def network(a, name: str, model: dict, steps: int, seed: int):
    """A trained autoencoder: its result, data set, embedding function and embedding."""
    result = autoencoders.run(a, name, model, steps, seed)
    dataset, module = build(autoencoders.make_config(a, seed, steps, model))
    folder = autoencoders.folder_of(a, name, seed)
    _, embed = autoencoders.read(folder, dataset, module)
    series = report.gather(series_source(dataset), embed, a.batch_size)
    return result, dataset, embed, embedded(series, a.clusters)


def halves(found: Embedded) -> tuple[dict, dict]:
    """Dates of the earlier and the later half of the training years.

    Raises:
        ValueError: if the series has no dates, or fewer than two training years.
    """
    dates = found.series.dates
    if dates is None:
        raise ValueError("the series has no dates; use --no-years")
    splits = [dates[found.at(SPLITS.index(s))] for s in SPLITS]
    train, validation, _ = splits
    years = np.unique(train.astype("datetime64[Y]"))
    if len(years) < 2:
        raise ValueError(f"{len(years)} training year: two are needed; use --no-years")
    middle = years[len(years) // 2].astype("datetime64[D]")
    rest = dict(validate_until=_day(validation.max()))
    earlier = dict(train_from=_day(train.min()), train_until=_day(middle - 1))
    later = dict(train_from=_day(middle), train_until=_day(train.max()))
    return earlier | rest, later | rest


def _day(date: np.datetime64) -> str:
    return str(date.astype("datetime64[D]"))


def row_of(a, name: str, model: dict, steps: int) -> list[dict[str, float]]:
    """Measures of one model: of each training, and last the agreement of pairs."""
    rows, several = [], []
    for seed in range(a.seeds):
        result, dataset, embed, found = network(a, name, model, steps, seed)
        several.append(found)
        rows.append(
            {key: result[key] for key in ("parameters", "steps", "mse")}
            | perturbed(a, dataset, embed, found)
            | seasonal(found)
        )
        print(f"{name}, seed {seed}: done", flush=True)
    more = alike("seeds", several)
    if a.years:
        of_periods = []
        for number, dates in enumerate(halves(several[0])):
            shifted = copy.copy(a)
            shifted.dates, shifted.out = dates, a.out / f"years-{number}"
            of_periods.append(network(shifted, name, model, steps, 0)[-1])
        more |= alike("years", of_periods)
        print(f"{name}, two training periods: done", flush=True)
    return [*rows, more]


def components_row(a, model: dict) -> list[dict[str, float]]:
    """The measures of principal components, which have no seed."""
    config = autoencoders.make_config(a, 0, 1, model)
    dataset, _ = build(config)
    width = config.model.embedding
    variables = dataset.data.example()["targets"].shape[-1]

    def blank(batch):
        return np.zeros((*np.shape(batch["targets"])[:2], width), np.float32)

    empty = report.gather(series_source(dataset), blank, a.batch_size)
    basis = report.Components(empty, width)

    def embed(batch):
        fields = np.asarray(batch["inputs"])[..., :variables]
        points = basis.scores(fields.reshape(-1, *fields.shape[2:]))
        return points.reshape(*fields.shape[:2], -1)

    series = report.gather(series_source(dataset), embed, a.batch_size)
    found = embedded(series, a.clusters)
    return [perturbed(a, dataset, embed, found) | seasonal(found)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing, measures, and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--path", default="", help="file; default: the climate twin")
    parser.add_argument("--scale", choices=SCALES, default="quick")
    parser.add_argument(
        "--anomalies", action="store_true", help="remove the mean seasons"
    )
    parser.add_argument("--clusters", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument(
        "--no-years", dest="years", action="store_false", help="no shifted years"
    )
    parser.add_argument("--out", type=pathlib.Path, default="runs/robustness")
    a = parser.parse_args(arguments)
    for name, least in (("clusters", 2), ("seeds", 1), ("steps", 1)):
        if getattr(a, name) < least:
            parser.error(f"--{name}={getattr(a, name)}: expected at least {least}")
    a.seasons, a.out = not a.anomalies, a.out / a.scale
    a.batch_size = autoencoders.make_config(a, 0, 1, {}).eval.batch_size
    logging.basicConfig(level=logging.WARNING)
    compilation_cache.cache_compilations()
    a.out.mkdir(parents=True, exist_ok=True)
    if a.scale == "test":
        a.seeds, a.steps = min(a.seeds, 2), min(a.steps, 4)
        variants = {
            "ConvLSTM": (dict(cell="conv_lstm"), a.steps),
            "FAConvLSTM, equal width": (dict(cell="fa_conv_lstm"), a.steps),
        }
    else:
        variants = autoencoders.kept_variants(a)
    rows = {COMPONENTS: components_row(a, dict(cell="conv_lstm"))}
    for name, (model, steps) in variants.items():
        try:
            rows[name] = row_of(a, name, model, steps)
        except (ValueError, Mismatch) as error:
            parser.error(str(error))
        scoring.write_json(a.out / "table.json", rows)
        (a.out / "table.md").write_text(autoencoders.table(rows, COLUMNS))
    print(autoencoders.table(rows, COLUMNS))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
