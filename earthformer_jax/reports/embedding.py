"""The report on embeddings: embeddings.nc, scores.json, a table, figures.

The autoencoder restores the test examples; so do the climatology and as many principal
components as the embeddings have features. Embeddings of every frame of the series are
written with their dates and sorted into regimes by k-means. The regimes, and those that
principal components give, are judged by the scores of `metrics.clusters` over several
seeds.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr
from sklearn.decomposition import PCA

from earthformer_jax import plotting
from earthformer_jax.data.dataset import Data
from earthformer_jax.data.pipeline import evaluation_batches
from earthformer_jax.data.source import Batch
from earthformer_jax.data.splits import SPLITS
from earthformer_jax.data.task import EmbedSeries, Forecast, SeriesSource
from earthformer_jax.metrics import clusters as cluster_lib
from earthformer_jax.reports import frames, scoring
from earthformer_jax.reports.scoring import ModelFunctions, Settings

SEEDS = 5  # of k-means
JUDGED = 4000  # at most so many frames, evenly spaced, go into cluster scores
VALUES = 2000  # at most so many values of a frame, evenly spaced, are compared
SAMPLE_BYTES = 2**28  # at most so many bytes of frames give principal components
EXAMPLES_SHOWN = 6


@dataclasses.dataclass(frozen=True)
class Series:
    """The embedded frames of a series, in order.

    Attributes:
        embeddings: float32 `[n, d]`.
        frame: int `[n]`, number of each frame in the series.
        split: int `[n]`, index of its split in `SPLITS`; -1: none.
        time: int64 `[n]`, minutes since 1970-01-01 UTC; None if unknown.
        fields: float32 `[m, h, w, c]` in model units, of the frames `kept`; 0 where
            missing.
        kept: int `[m]`, indices of frames along n.
    """

    embeddings: np.ndarray
    frame: np.ndarray
    split: np.ndarray
    time: np.ndarray | None
    fields: np.ndarray
    kept: np.ndarray

    @property
    def dates(self) -> np.ndarray | None:
        """datetime64[ns] `[n]`."""
        if self.time is None:
            return None
        return self.time.astype("datetime64[m]").astype("datetime64[ns]")


def score(
    task: EmbedSeries,
    data: Data,
    model: ModelFunctions,
    workdir: str | os.PathLike,
    settings: Settings,
) -> dict:
    """Embeds the whole series, judges embeddings and restored fields, reports both.

    Args:
        task: metric, references, and the series.
        data: with the test split.
        model: the trained model, with embeddings; it restores the inputs.
        workdir: where embeddings.nc, scores.json and figures/ are written.
        settings: batch size and number of regimes.

    Returns:
        what scores.json holds: {"data": {...}, "forecasts": {name: scores},
        "clusters": {"number": ..., "embeddings" | "principal components": {space:
        {score: {"mean", "spread"}}}}}.

    Raises:
        ValueError: if there are fewer frames than regimes, or the model has no
            embeddings.
    """
    if model.embed is None:
        raise ValueError("model.embed=None: the task needs a model with embeddings")
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    series = gather(task.series, model.embed, settings.batch_size)
    width = series.embeddings.shape[-1]
    components = Components(series, width)
    forecasts = {
        "model": model.forecast,
        f"{components.count} principal components": components.restore,
        **task.references,
    }
    errors = []
    results = scoring.evaluate(
        task.metric,
        data.test,
        forecasts,
        settings.batch_size,
        lambda *batch: errors.extend(_errors(*batch)),
    )
    points = {
        "embeddings": series.embeddings[series.kept],
        "principal components": components.scores(series.fields),
    }
    judged = {name: judge(series, x, settings.clusters) for name, x in points.items()}
    scores = {
        "data": frames.describe(task, data) | {"embedded_frames": len(series.frame)},
        "forecasts": results,
        "clusters": {"number": settings.clusters, "seeds": SEEDS, **judged},
    }
    regimes = cluster_lib.k_means(
        series.embeddings, settings.clusters, seed=0, fit=_training(series.split)
    )
    write(series, regimes, data.description, settings.output(workdir, "embeddings.nc"))
    scoring.write_json(settings.output(workdir, "scores.json"), scores)
    print(table(scores), flush=True)
    typical = int(np.argsort(errors)[(len(errors) - 1) // 2])
    figures = settings.output(workdir, "figures")
    draw(data, series, regimes, forecasts, typical, settings.batch_size, figures)
    return scores


def gather(
    source: SeriesSource, embed: Callable[[Batch], np.ndarray], batch_size: int
) -> Series:
    """Embeds every frame of a series, in the window it is central in."""
    example = source[0]
    field_bytes = example["targets"][0].nbytes
    total = source.frame_count
    most = max(1, min(JUDGED, SAMPLE_BYTES // field_bytes))
    kept = np.unique(np.linspace(0, total - 1, min(total, most)).astype(int))
    is_kept = np.zeros(total, bool)
    is_kept[kept] = True
    found = {key: [] for key in ("embeddings", "frame", "split", "time", "fields")}
    position = 0
    for batch in evaluation_batches(source, batch_size):
        chosen = np.asarray(batch["central"]) & np.asarray(batch["valid"])[:, None]
        here = is_kept[position : position + chosen.sum()]
        position += len(here)
        found["embeddings"].append(np.asarray(embed(batch))[chosen])
        found["fields"].append(np.asarray(batch["targets"])[chosen][here])
        for key in ("frame", "split", "time"):
            if key in batch:
                found[key].append(np.asarray(batch[key])[chosen].astype(np.int64))
    joined = {key: np.concatenate(parts) for key, parts in found.items() if parts}
    return Series(time=joined.pop("time", None), kept=kept, **joined)


class Components:
    """Principal components of training frames: the best linear embedding."""

    def __init__(self, series: Series, width: int):
        """Fits as many components as embeddings have features, if there are so many."""
        training = _training(series.split[series.kept])
        flat = series.fields[training].reshape(int(training.sum()), -1)
        self.count = min(width, *flat.shape)
        self._values = flat.shape[1]
        self._pca = PCA(self.count, svd_solver="auto", random_state=0).fit(flat)

    def scores(self, fields: np.ndarray) -> np.ndarray:
        """`[n, count]` of fields `[n, h, w, c]`."""
        return self._pca.transform(fields.reshape(len(fields), -1))

    def restore(self, batch: Batch) -> np.ndarray:
        """The targets of a batch, projected onto the components."""
        targets = np.asarray(batch["targets"])
        flat = targets.reshape(-1, self._values)
        restored = self._pca.inverse_transform(self._pca.transform(flat))
        return restored.reshape(targets.shape).astype(np.float32)


def judge(series: Series, points: np.ndarray, clusters: int) -> dict:
    """Scores of regimes found from points of the frames kept, over seeds of k-means.

    Args:
        series: with their fields.
        points: `[m, d]`.
        clusters: number of regimes.

    Returns:
        {"in their own space": ..., "in the fields": ...}, each {score: {"mean",
        "spread"}}; the spread is the standard deviation over seeds.
    """
    cells = int(np.prod(series.fields.shape[1:]))
    fields = cluster_lib.unit_range(series.fields, cells=-(-cells // VALUES))
    spaces = {"in their own space": points, "in the fields": fields}
    training = _training(series.split[series.kept])
    found = {space: [] for space in spaces}
    for seed in range(SEEDS):
        labels = cluster_lib.k_means(points, clusters, seed, fit=training)
        for space, judged in spaces.items():
            found[space].append(cluster_lib.cluster_scores(judged, labels))
    return {
        space: {
            name: {
                "mean": float(np.mean([s[name] for s in scores])),
                "spread": float(np.std([s[name] for s in scores])),
            }
            for name in cluster_lib.DIRECTIONS
        }
        for space, scores in found.items()
    }


def write(series: Series, regimes: np.ndarray, origin: str, path: Path) -> None:
    """Writes embeddings and regimes with their dates, atomically.

    Args:
        series: with its embeddings.
        regimes: int `[n]`.
        origin: what the series is.
        path: of the NetCDF file.
    """
    axis = "frame" if series.dates is None else "time"
    coordinate = series.frame if series.dates is None else series.dates
    file = xr.Dataset(
        {
            "embedding": ((axis, "feature"), series.embeddings),
            "regime": (axis, regimes.astype(np.int32)),
            "split": (axis, series.split.astype(np.int8)),
        },
        coords={axis: coordinate},
        attrs={"title": f"Embeddings of {origin}"},
    )
    file["regime"].attrs["long_name"] = "k-means cluster, 0 is the largest"
    meanings = " ".join(("outside", *SPLITS))
    file["split"].attrs.update(
        flag_values=np.arange(-1, len(SPLITS), dtype=np.int8), flag_meanings=meanings
    )
    unfinished = path.with_name(f".{path.name}.part")
    file.to_netcdf(unfinished, engine="netcdf4")
    os.replace(unfinished, path)


def table(scores: Mapping) -> str:
    """The scores as text: restored fields, then regimes."""
    data, forecasts, regimes = (scores[k] for k in ("data", "forecasts", "clusters"))
    names = [k for k, v in forecasts["model"].items() if not isinstance(v, list)]
    width = max(map(len, [*forecasts, "principal components"]))
    lines = [
        data["description"],
        f"Restored ({data['test_examples']} test examples; mse: {data['mse_units']})",
        " ".join([" " * width, *(f"{name:>10}" for name in names)]),
    ]
    for name, s in forecasts.items():
        cells = [f"{s[k]:>10.4g}" for k in names]
        lines.append(" ".join([f"{name:<{width}}", *cells]))
    widths = [max(len(name), 13) for name in cluster_lib.DIRECTIONS]
    for space in ("in their own space", "in the fields"):
        lines += [
            f"{regimes['number']} regimes judged {space} (mean and spread of "
            f"{regimes['seeds']} seeds of k-means)",
            _row("", width, cluster_lib.DIRECTIONS, widths),
        ]
        for name in ("embeddings", "principal components"):
            cells = [
                f"{s['mean']:.4g} ± {s['spread']:.2g}"
                for s in regimes[name][space].values()
            ]
            lines.append(_row(name, width, cells, widths))
    return "\n".join(lines)


def draw(
    data: Data,
    series: Series,
    regimes: np.ndarray,
    forecasts: Mapping[str, Forecast],
    example: int,
    batch_size: int,
    folder: Path,
) -> None:
    """Writes regimes.png, composites.png, projection.png and restored.png.

    The last one shows the test example of number `example`.
    """
    field_table = functools.partial(
        plotting.field_table,
        south_first=data.display.south_first,
        coordinates=data.coordinates,
    )
    count = int(regimes.max()) + 1
    if series.dates is not None:
        figure = plotting.regime_calendar(series.dates, regimes)
        plotting.save(figure, folder / "regimes.png")
    day = None
    if series.dates is not None:
        day = series.dates.astype("datetime64[D]")
        day = (day - day.astype("datetime64[Y]").astype("datetime64[D]")).astype(int)
    plane = _plane(series.embeddings)
    plotting.save(plotting.projection(plane, regimes, day), folder / "projection.png")
    labels = regimes[series.kept]
    average = series.fields.mean(axis=0)
    shares = np.bincount(regimes, minlength=count) / len(regimes)
    channels = data.display.channels[: frames.CHANNELS]
    rows = {
        f"{channel.name}\n({channel.units})" if channel.units else channel.name: [
            channel.scale * (series.fields[labels == k].mean(axis=0) - average)[..., c]
            if np.any(labels == k)
            else np.full(average.shape[:2], np.nan)
            for k in range(count)
        ]
        for c, channel in enumerate(channels)
    }
    figure = field_table(
        rows,
        columns=[f"Regime {k + 1}\n{share:.0%}" for k, share in enumerate(shares)],
        title="Mean field of each regime, less the mean of all frames",
        diverging=True,
    )
    plotting.save(figure, folder / "composites.png")
    (batch,) = evaluation_batches([data.test[example]], batch_size)
    channel = channels[0]
    fields = {"truth": batch["targets"]} | {k: f(batch) for k, f in forecasts.items()}
    length = np.shape(batch["targets"])[1]
    steps = np.unique(
        np.linspace(0, length - 1, min(length, EXAMPLES_SHOWN)).astype(int)
    )
    figure = field_table(
        {
            name: [channel.shown(np.asarray(x)[0, i, ..., 0]) for i in steps]
            for name, x in fields.items()
        },
        columns=[f"Frame {i + 1}" for i in steps],
        title=f"{channel.name} of a test example, restored (median error)",
        units=channel.units,
    )
    plotting.save(figure, folder / "restored.png")


def _plane(points: np.ndarray) -> np.ndarray:
    """The first two principal components, `[n, 2]`; 0 where there are fewer."""
    count = min(2, *points.shape)
    found = PCA(count, random_state=0).fit_transform(points)
    return np.pad(found, ((0, 0), (0, 2 - count)))


def _errors(batch: Batch, fields: Mapping[str, np.ndarray]) -> list[float]:
    """Mean squared error of the model for each real example of a batch."""
    known = np.broadcast_to(batch.get("observed", True), batch["targets"].shape)
    squared = np.where(known, fields["model"] - batch["targets"], 0) ** 2
    return squared.mean(axis=(1, 2, 3, 4))[np.asarray(batch["valid"])].tolist()


def _training(split: np.ndarray) -> np.ndarray:
    return split == SPLITS.index("train")


def _row(head, width, cells, widths) -> str:
    cells = [f"{cell:>{w}}" for cell, w in zip(cells, widths, strict=True)]
    return " ".join([f"{head:<{width}}", *cells])
