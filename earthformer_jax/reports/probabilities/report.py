"""Probabilities in a report: scores, a short table, and figures.

A model that draws is scored by its members, beside dressed references
(`probabilities.dressing`), its own single forecast dressed alike, and what is known to
be the best possible distribution.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from earthformer_jax import plotting
from earthformer_jax.data.dataset import Data
from earthformer_jax.data.source import Batch
from earthformer_jax.data.task import Forecast, ForecastNino, Task
from earthformer_jax.metrics import bootstrap, index_skill
from earthformer_jax.metrics.bootstrap import LEVEL, SAMPLES
from earthformer_jax.metrics.ensembles.calibration import flatness
from earthformer_jax.reports.nino import skill as nino_skill
from earthformer_jax.reports.probabilities.dressing import QUANTILES, dress
from earthformer_jax.reports.probabilities.scoring import (
    Entry,
    Remembered,
    Scored,
    evaluate,
    fitting_batch,
)
from earthformer_jax.reports.probabilities.views import FIELD, View, views_of
from earthformer_jax.reports.scoring import (
    CEILING,
    MODEL,
    NOT_REFERENCES,
    ModelFunctions,
    Settings,
)

DRESSED_MODEL = "model_dressed"
EVENTS_SHOWN = 3


def scores_of(
    task: Task,
    data: Data,
    model: ModelFunctions,
    references: Mapping[str, Forecast],
    settings: Settings,
) -> dict[str, Any]:
    """{"probabilities": `score`}; {} if the model gives single forecasts only."""
    if model.members is None or model.size < 2:
        return {}
    return {"probabilities": score(task, data, model, references, settings)}


def lines(scores: Mapping[str, Any]) -> list[str]:
    """What a report says of the probabilities in its scores, if there are any."""
    found = scores.get("probabilities")
    return [] if found is None else ["", table(found)]


def score(
    task: Task,
    data: Data,
    model: ModelFunctions,
    references: Mapping[str, Forecast],
    settings: Settings,
) -> dict[str, Any]:
    """Scores the members of a model, and dressed references, on all test examples.

    Args:
        task: what is asked.
        data: references are dressed with their errors on its validation split.
        model: the trained model; it has members.
        references: reference forecasts by name.
        settings: the batch size is used.

    Returns:
        {"about": {...}, "views": {name: {"units": ..., "forecasts": {name: scores}}}}.
        Scores are those of `EnsembleScores.compute`, with "crps_interval" and
        "differences" of the mean CRPS to every other forecast, each with its interval;
        those of the model also have "flatness" of its rank histogram.
    """
    assert model.members is not None
    size = model.size
    shape = np.shape(data.test[0]["targets"])
    batch_size = fitting_batch(shape, max(size, QUANTILES), settings.batch_size)
    views = views_of(task, data)
    singles = {name: f for name, f in references.items() if name not in task.gaussians}
    singles = {k: Remembered(f) for k, f in singles.items()}
    singles[DRESSED_MODEL] = Remembered(model.forecast)
    members = Remembered(model.members)
    entries = []
    for view in views:
        entries += [Entry(MODEL, view, _seen(view, members), size, drawn=True)]
        entries += _dressed(view, singles, data, batch_size)
        entries += [
            Entry(name, view, known[view.name], QUANTILES, gaussian=True)
            for name, known in task.gaussians.items()
        ]
    events: list[np.ndarray] = []

    def watch(batch: Batch) -> None:
        if "event" in batch:
            events.append(np.asarray(batch["event"])[batch["valid"]])

    scored = evaluate(entries, data.test, batch_size, watch)
    block, found = block_of(task, data, events), {}
    for view in views:
        own = {
            entry.name: result
            for entry, result in zip(entries, scored, strict=True)
            if entry.view is view
        }
        found[view.name] = {"units": view.units, "forecasts": _with_skill(own, block)}
    few = len(data.test) < bootstrap.LEAST_BLOCKS * block
    about = {
        "members": size,
        "spread": model.spread,
        "quantiles": QUANTILES,
        "dressed_with": f"errors in {len(data.validation)} validation examples",
        "level": LEVEL,
        "samples": 0 if few else SAMPLES,
        "block": block,
    }
    return {"about": about, "views": found}


def _seen(view: View, forecast: Forecast) -> Forecast:
    return lambda batch: view.project(np.asarray(forecast(batch)))


def _dressed(
    view: View, singles: Mapping[str, Forecast], data: Data, batch_size: int
) -> list[Entry]:
    """Single forecasts with their errors; none if there is nothing to learn from."""
    if not len(data.validation):
        return []
    seen = {name: _seen(view, forecast) for name, forecast in singles.items()}
    examples = view.of(data.validation)
    dressed = dress(seen, examples, view.habits, batch_size)
    return [Entry(name, view, f, QUANTILES) for name, f in dressed.items()]


def block_of(task: Task, data: Data, events: Sequence[np.ndarray] = ()) -> int:
    """Test examples that bootstrap samples keep together: those that share frames.

    Args:
        task: what is asked.
        data: with the test split.
        events: the event of every test example in order, in parts; empty: they are not
            of events. Those of one event are kept together.
    """
    if isinstance(task, ForecastNino):
        return nino_skill.block_of(data)
    if events:
        every = np.concatenate(events)
        edges = np.flatnonzero(np.diff(every)) + 1
        return int(np.diff(edges, prepend=0, append=len(every)).max())
    spans = data.spans.get("test")
    # With places, spans are not in the order of time, and may be of some examples only.
    if spans is None or spans.place is not None:
        return 1
    block = 1
    while block < len(spans):
        first, last = spans.first, spans.last
        overlap = (first[block:] <= last[:-block]) & (last[block:] >= first[:-block])
        if not overlap.any():
            break
        block += 1
    return block


def _with_skill(scored: Mapping[str, Scored], block: int) -> dict[str, dict]:
    """Scores by name, with intervals and differences of the CRPS."""
    # Leads count alike, and of each only the examples that are observed.
    each = np.stack([result.crps for result in scored.values()])
    counts = bootstrap.draw(each.shape[1], block)
    known = np.isfinite(each).any(axis=(0, 1))
    samples = index_skill.mean(counts, each[..., known]).mean(axis=-1)
    names, found = list(scored), {}
    for i, (name, result) in enumerate(scored.items()):
        differences = {}
        for j, other in enumerate(names):
            if j != i:
                gap = samples[:, i] - samples[:, j]
                limits = bootstrap.interval(gap, LEVEL).tolist()
                differences[other] = {"crps": float(gap[0]), "interval": limits}
        found[name] = result.scores | {
            "crps_interval": bootstrap.interval(samples[:, i], LEVEL).tolist(),
            "differences": differences,
        }
    if MODEL in scored:
        ranks = scored[MODEL].ranks
        starts = np.arange(0, len(ranks), block)
        found[MODEL]["flatness"] = flatness(np.add.reduceat(ranks, starts, axis=0))
    return found


def best_reference(forecasts: Mapping[str, Mapping]) -> str | None:
    """The dressed reference with the smallest CRPS; None if there is none."""
    known = {
        name: s["crps"]
        for name, s in forecasts.items()
        if name not in (*NOT_REFERENCES, DRESSED_MODEL) and np.isfinite(s["crps"])
    }
    return min(known, key=known.__getitem__) if known else None


def table(scores: Mapping[str, Any]) -> str:
    """The scores as text: one row per forecast of each view."""
    about = scores["about"]
    lines = [
        f"Probabilities of {about['members']} members; the others have "
        f"{about['dressed_with']} added to them"
    ]
    for name, view in scores["views"].items():
        lines += _rows(name, view)
    return "\n".join(lines)


def _rows(name: str, view: Mapping[str, Any]) -> list[str]:
    """Lines on one view."""
    forecasts = view["forecasts"]
    events = list(forecasts[MODEL]["events"])[-EVENTS_SHOWN:]
    what = name if name != FIELD else "fields"
    width = max(map(len, [what, *forecasts]))
    heads = ["CRPS", "spread", "error", "ratio"]
    heads += [f"Brier {event}" for event in events]
    widths = [max(len(head), 8) for head in heads]
    cells = [f"{head:>{w}}" for head, w in zip(heads, widths, strict=True)]
    lines = [" ".join([f"{what:<{width}}", *cells]) + f"   ({view['units']})"]
    for forecast, s in forecasts.items():
        values = [s[key] for key in ("crps", "spread", "rmse", "ratio")]
        values += [s["events"][event]["brier"] for event in events]
        cells = [f"{x:>{w}.4g}" for x, w in zip(values, widths, strict=True)]
        lines.append(" ".join([f"{forecast:<{width}}", *cells]))
    own, other = forecasts[MODEL], best_reference(forecasts)
    if other is not None:
        difference = own["differences"][other]
        share = 100 / forecasts[other]["crps"]
        low, high = (share * x for x in difference["interval"])
        text = f"CRPS {share * difference['crps']:+.1f} %"
        if np.isfinite(low):
            text += f" ({low:+.1f} to {high:+.1f} %)"
        lines.append(f"{text} to the best dressed reference, {other}")
    if CEILING in forecasts:
        share = 100 * (own["crps"] / forecasts[CEILING]["crps"] - 1)
        lines.append(f"CRPS {share:+.1f} % to the best possible forecast")
    flat = own["flatness"]
    if np.isfinite(flat["p_value"]):
        lines.append(
            f"Rank histogram: chi-square {flat['chi2']:.1f} for "
            f"{flat['effective']:.0f} independent values, p = {flat['p_value']:.2g}"
        )
    return lines


def draw(scores: Mapping[str, Any], data: Data, folder: Path) -> None:
    """Writes calibration.png of the fields, and one more for an index.

    Args:
        scores: of a report; nothing is drawn if they are without probabilities.
        data: what they are of.
        folder: of the figures.
    """
    if "probabilities" not in scores:
        return
    scores = scores["probabilities"]
    for name, view in scores["views"].items():
        forecasts = view["forecasts"]
        beside = [best_reference(forecasts), DRESSED_MODEL, CEILING]
        shown = [MODEL, *(x for x in beside if x in forecasts)]
        what = data.name if name == FIELD else f"{name}, {data.name}"
        figure = plotting.calibration(
            {x: forecasts[x] for x in shown},
            units=view["units"],
            step=plotting.step_of(data.display.frame),
            title=f"Probabilities on {what}: {scores['about']['members']} members",
        )
        suffix = "" if name == FIELD else f"_{name}"
        plotting.save(figure, folder / f"calibration{suffix}.png")
