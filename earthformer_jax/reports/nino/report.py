"""The report on ENSO forecasts: scores.json, skill.nc, a table, and figures.

Every forecast (the model and the references of the task) is scored on the same test
windows by the metric of the task; intervals and all other skill come from the indices
of single windows, see `nino.windows`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from earthformer_jax import plotting
from earthformer_jax.data.dataset import Data
from earthformer_jax.data.task import Forecast, ForecastNino
from earthformer_jax.reports import scoring
from earthformer_jax.reports.nino import archive, page
from earthformer_jax.reports.nino import skill as skill_lib
from earthformer_jax.reports.nino.skill import TABLE_LEADS, Skill
from earthformer_jax.reports.nino.windows import Gatherer
from earthformer_jax.reports.probabilities import report as probabilities
from earthformer_jax.reports.scoring import ModelFunctions, Settings

MAP_LEADS = (1, 3, 6, 9, 12)
EVENT_LEAD = 6  # the maps show the window with the strongest event at this lead
# The first two at hand join the truth.
MAP_ROWS = ("model", "ceiling", "lim_field_memory", "lim")


def score(
    task: ForecastNino,
    data: Data,
    model: ModelFunctions,
    workdir: str | os.PathLike,
    settings: Settings,
) -> dict:
    """Scores a model and the references on all test windows, and reports it.

    Args:
        task: metric, references, and the Niño3.4 index.
        data: with the test split.
        model: the trained model.
        workdir: where scores.json and figures/ are written.
        settings: the batch size is used.

    Returns:
        what scores.json holds: {"data": {...}, "forecasts": {name: scores}}, and
        {"members": [scores]} of an ensemble. A model with members also has
        {"probabilities": ...}, see `probabilities.report.score`.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    forecasts = {"model": model.forecast, **task.references}
    results, skill, event = evaluate(task, data, forecasts, settings.batch_size)
    members = scoring.members_of(results)
    for name, added in skill_lib.added_scores(skill).items():
        results[name] |= added
    scores = {
        "data": describe(task, data, results) | {"intervals": skill_lib.about(skill)},
        "forecasts": results,
    } | members
    scores |= probabilities.scores_of(task, data, model, task.references, settings)
    scoring.write_json(settings.output(workdir, "scores.json"), scores)
    archive.write(settings.output(workdir, archive.NAME), skill, data, model.step)
    lines = [table(scores), *skill_lib.summary(skill), *probabilities.lines(scores)]
    print("\n".join(lines), flush=True)
    figures = settings.output(workdir, "figures")
    probabilities.draw(scores, data, figures)
    plotting.save(skill_figure(scores), figures / "skill.png")
    plotting.save(
        plotting.skill_page(page.content(skill, data, index_name(task.index_months))),
        figures / "nino_skill.png",
        cut=False,
    )
    plotting.save(map_figure(task, data, event), figures / "forecast_maps.png")
    return scores


def evaluate(
    task: ForecastNino, data: Data, forecasts: Mapping[str, Forecast], batch_size: int
) -> tuple[dict[str, dict], Skill, dict]:
    """Runs all forecasts over the test windows once.

    Returns:
        scores by name in the order of the report, the skill with its samples, and the
        event for the maps: the window with the largest three-month index at lead
        `EVENT_LEAD` (model units, one window without batch axis, forecasts under
        "forecasts").
    """
    strongest, event = -np.inf, {}
    gatherer = Gatherer(task, data)

    def watch(batch, fields):
        nonlocal strongest, event
        gatherer.add(batch, fields)
        index = np.asarray(batch["nino34_three_month"])
        amplitude = np.abs(index[:, min(EVENT_LEAD, index.shape[1]) - 1])
        amplitude = np.nan_to_num(amplitude)  # unknown where too little was observed
        i = int(np.argmax(amplitude))
        if amplitude[i] > strongest:
            strongest = amplitude[i]
            event = {key: np.asarray(value)[i] for key, value in batch.items()}
            event["forecasts"] = {name: field[i] for name, field in fields.items()}

    results = scoring.evaluate(task.metric, data.test, forecasts, batch_size, watch)
    members: Any = results.get("model", {}).get("members", [])
    for scores in [*results.values(), *members]:
        leading = np.asarray(scores["correlation"])[:TABLE_LEADS]
        scores["correlation_mean"] = float(np.mean(leading))
    block = skill_lib.block_of(data)
    skill = skill_lib.compute(gatherer.windows(), task.index_months, block)
    return results, skill, event


def describe(task: ForecastNino, data: Data, results: Mapping[str, Mapping]) -> dict:
    """What the scores are about: the "data" part of scores.json."""
    correlation = next(iter(results.values()))["correlation"]
    return {
        "name": data.name,
        "description": data.description,
        "test_windows": len(data.test),
        "index": index_name(task.index_months),
        "index_months": task.index_months,
        "leads": list(range(1, len(correlation) + 1)),
        "mean_over_leads": min(TABLE_LEADS, len(correlation)),
        "mse_units": task.mse_units,
        **task.protocol,
    }


def index_name(index_months: int) -> str:
    """What the index in "correlation" is called in text."""
    return "monthly Niño3.4" if index_months == 1 else "three-month mean Niño3.4"


def table(scores: Mapping) -> str:
    """The scores as text: one row per forecast, leads as columns.

    After the leads that the mean is over, every third lead has a column.
    """
    data, forecasts = scores["data"], scores["forecasts"]
    last = data["mean_over_leads"]
    leads = [k for k in data["leads"] if k <= last or k % 3 == 0]
    width = max(len(name) for name in forecasts)
    heads = [f"{lead:>5}" for lead in leads]
    heads += [f"{head:>6}" for head in ("mean", "C-M", "C-WM")] + [f"{'MSE':>9}"]
    lines = [
        data["description"],
        *scoring.protocol_line(data),
        f"Correlation of {data['index']} by lead in months "
        f"({data['test_windows']} test windows; mean: of leads 1 to {last}; "
        "C-M and C-WM: three-month means; "
        f"MSE: {data['mse_units']})",
        " ".join([" " * width, *heads]),
    ]
    for name, s in forecasts.items():
        cells = [f"{s['correlation'][k - 1]:5.2f}" for k in leads]
        cells += [
            f"{s[key]:6.3f}"
            for key in ("correlation_mean", "c_nino34_m", "c_nino34_wm")
        ]
        lines.append(" ".join([f"{name:<{width}}", *cells, f"{s['mse']:9.3g}"]))
    return "\n".join(lines)


def skill_figure(scores: Mapping):
    """Correlation against lead for all forecasts."""
    data = scores["data"]
    return plotting.skill_curves(
        {
            name: s["correlation"][: data["mean_over_leads"]]
            for name, s in scores["forecasts"].items()
        },
        title=f"ENSO forecast skill, {data['test_windows']} test windows",
        index=data["index"],
    )


def map_figure(task: ForecastNino, data: Data, event: Mapping):
    """Maps of one window: the truth and the first two forecasts of `MAP_ROWS`."""
    chosen = [name for name in MAP_ROWS if name in event["forecasts"]][:2]
    fields = {"Truth": event["targets"]} | {
        plotting.look(name)[0]: event["forecasts"][name] for name in chosen
    }
    kelvin = {
        label: data.normalization.decode(np.asarray(field, np.float64))[..., 0]
        for label, field in fields.items()
    }
    index = {
        label: np.sum(
            np.where(task.nino_weights, field * task.nino_weights, 0), (-2, -1)
        )
        for label, field in kelvin.items()
    }
    if "observed" in event:
        kelvin["Truth"] = np.where(event["observed"][..., 0], kelvin["Truth"], np.nan)
        index["Truth"] = event["nino34"]
    months = len(event["targets"])
    return plotting.forecast_maps(
        kelvin,
        leads=[lead for lead in MAP_LEADS if lead <= months],
        start_month=int(event["start_month"]),
        latitude=data.coordinates["latitude"],
        longitude=data.coordinates["longitude"],
        ocean_mask=task.ocean,
        index=index,
        title=f"One test forecast: the strongest event {EVENT_LEAD} months ahead",
    )
