"""The report on ENSO forecasts: scores.json, a table, and two figures.

Every forecast (the model and the references of the data set) is scored on the same test
windows by the metric of the data set.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from earthformer_jax import plotting
from earthformer_jax.data.source import Forecast
from earthformer_jax.reports import scoring

TABLE_LEADS = 12  # columns of the table, and leads in "correlation_mean"
MAP_LEADS = (1, 3, 6, 9, 12)
EVENT_LEAD = 6  # the maps show the window with the strongest event this far ahead
MAP_ROWS = ("model", "ceiling", "lim")  # at most two of those beside the truth


def score(
    dataset, forecast_fn: Forecast, workdir: str | os.PathLike, batch_size: int = 32
) -> dict:
    """Scores a model beside the references on all test windows, and reports it.

    Args:
        dataset: an ENSO data set (`data.enso.enso.EnsoDataset`).
        forecast_fn: batch -> `[b, k, h, w, c]` in model units.
        workdir: where scores.json and figures/ are written.
        batch_size: windows per call of a forecast.

    Returns:
        what scores.json holds: {"data": {...}, "forecasts": {name: scores}}.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    results, event = evaluate(
        dataset, {"model": forecast_fn, **dataset.references}, batch_size
    )
    scores = {"data": describe(dataset, results), "forecasts": results}
    scoring.write_json(workdir / "scores.json", scores)
    print(table(scores), flush=True)
    figures = workdir / "figures"
    plotting.save(skill_figure(scores), figures / "skill.png")
    plotting.save(map_figure(dataset, event), figures / "forecast_maps.png")
    return scores


def evaluate(
    dataset, forecasts: Mapping[str, Forecast], batch_size: int
) -> tuple[dict[str, dict], dict]:
    """Runs all forecasts over the test windows once.

    Returns:
        scores by name in the order of the report, and the event for the maps: the
        window with the largest three-month index at lead `EVENT_LEAD` (model units,
        one window without batch axis, forecasts under "forecasts").
    """
    strongest, event = -np.inf, {}

    def watch(batch, fields):
        nonlocal strongest, event
        index = np.asarray(batch["nino34_three_month"])
        amplitude = np.abs(index[:, min(EVENT_LEAD, index.shape[1]) - 1])
        i = int(np.argmax(amplitude))
        if amplitude[i] > strongest:
            strongest = amplitude[i]
            event = {key: np.asarray(value)[i] for key, value in batch.items()}
            event["forecasts"] = {name: field[i] for name, field in fields.items()}

    results = scoring.evaluate(dataset, forecasts, batch_size, watch)
    for scores in results.values():
        leading = scores["correlation"][:TABLE_LEADS]
        scores["correlation_mean"] = float(np.mean(leading))
    return results, event


def describe(dataset, results: Mapping[str, Mapping]) -> dict:
    """What the scores are about: the "data" part of scores.json."""
    correlation = next(iter(results.values()))["correlation"]
    return {
        "name": dataset.name,
        "description": dataset.description,
        "test_windows": len(dataset.test),
        "index": index_name(dataset.index_months),
        "index_months": dataset.index_months,
        "leads": list(range(1, len(correlation) + 1)),
        "mean_over_leads": min(TABLE_LEADS, len(correlation)),
        "mse_units": dataset.mse_units,
    }


def index_name(index_months: int) -> str:
    """The index "correlation" stands for, for people."""
    return "monthly Niño3.4" if index_months == 1 else "three-month mean Niño3.4"


def table(scores: Mapping) -> str:
    """The scores as text: one row per forecast, leads as columns."""
    data, forecasts = scores["data"], scores["forecasts"]
    leads = data["leads"][: data["mean_over_leads"]]
    width = max(len(name) for name in forecasts)
    heads = [f"{lead:>5}" for lead in leads]
    heads += [f"{head:>6}" for head in ("mean", "C-M", "C-WM")] + [f"{'MSE':>9}"]
    lines = [
        data["description"],
        f"Correlation of {data['index']} by lead in months "
        f"({data['test_windows']} test windows; C-M and C-WM: three-month means; "
        f"MSE: {data['mse_units']})",
        " ".join([" " * width, *heads]),
    ]
    for name, s in forecasts.items():
        cells = [f"{c:5.2f}" for c in s["correlation"][: len(leads)]]
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


def map_figure(dataset, event: Mapping):
    """Maps of one window: the truth, the model, and the best reference at hand."""
    chosen = [name for name in MAP_ROWS if name in event["forecasts"]][:2]
    fields = {"Truth": event["targets"]} | {
        plotting.look(name)[0]: event["forecasts"][name] for name in chosen
    }
    kelvin = {
        label: np.asarray(dataset.to_kelvin(np.asarray(field, np.float64)))[..., 0]
        for label, field in fields.items()
    }
    index = {
        label: np.sum(
            np.where(dataset.nino_weights, field * dataset.nino_weights, 0), (-2, -1)
        )
        for label, field in kelvin.items()
    }
    months = len(event["targets"])
    return plotting.forecast_maps(
        kelvin,
        leads=[lead for lead in MAP_LEADS if lead <= months],
        start_month=int(event["start_month"]),
        latitude=dataset.grid.latitude,
        longitude=dataset.grid.longitude,
        ocean_mask=np.asarray(dataset.grid.ocean, bool),
        index=index,
        title=f"One test forecast: the strongest event {EVENT_LEAD} months ahead",
    )
