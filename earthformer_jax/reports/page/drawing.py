"""Figures of the sums of a verification: skill by lead, performance, spectra."""

import dataclasses
from pathlib import Path

import numpy as np

from earthformer_jax import plotting
from earthformer_jax.metrics.bootstrap import LEAST_BLOCKS, LEVEL
from earthformer_jax.metrics.scores import spatial
from earthformer_jax.metrics.verification import Score, Verification
from earthformer_jax.plotting.diagrams import performance, spectra
from earthformer_jax.plotting.style import lead_label
from earthformer_jax.reports.scoring import MODEL
from earthformer_jax.reports.verification import skill
from earthformer_jax.reports.verification.sums import BlockSums
from earthformer_jax.reports.verification.units import unit_of, units_text

# The panels of the skill: of each row the first score that there is, with its label.
PANELS = (
    {"mse": "Mean squared error", "frame_mse": "Mean squared error", "rmse": "RMSE"},
    {"csi": "CSI", "ssim": "SSIM", "acc": "Anomaly correlation", "mae": "MAE"},
    {"frequency_bias": "Frequency bias"},
)
BIAS_AT = 1  # the threshold, of the sorted ones, whose frequency bias is drawn
SINGLE = {"pool": 1, "window": 1}


def draw(sums: BlockSums, folder: Path, units: str = "") -> None:
    """Writes skill.png, performance.png and spectra.png, those that there are sums for.

    Args:
        sums: by block.
        folder: of the figures.
        units: of the fields as they are shown; "" if there are none.
    """
    figure = skill_figure(sums)
    if figure is not None:
        plotting.save(figure, folder / "skill.png")
    if {"pod", "success_ratio"} <= set(sums.verification.scores):
        plotting.save(performance_figure(sums), folder / "performance.png")
    for name, statistic in sums.verification.statistics.items():
        if "wavelength" in statistic.coords:
            figure = spectra_figure(sums, name, units)
            plotting.save(figure, folder / "spectra.png")


def skill_figure(sums: BlockSums):
    """Scores by lead, with intervals of the model and the best reference.

    Returns:
        None if no score of `PANELS` is known by lead.
    """
    chosen = _panels(sums)
    if not chosen:
        return None
    panels, bands = {}, {}
    with_panels = dataclasses.replace(
        sums,
        verification=Verification(sums.verification.statistics, chosen),
    )
    shown: list[str] = []
    for score in skill.sampled(with_panels, by_lead=True):
        values = {name: score.value(name).ravel() for name in score.samples}
        panels[score.name] = {name: x.tolist() for name, x in values.items()}
        if not shown:  # the first is an error
            mean = {name: float(np.mean(x)) for name, x in values.items()}
            others = skill.references_of(list(mean))
            best = min(others, key=lambda name: mean[name], default=MODEL)
            shown = [name for name in dict.fromkeys((MODEL, best)) if name in mean]
        if sums.blocks >= LEAST_BLOCKS:
            bands[score.name] = {
                name: score.interval(name).reshape(-1, 2).tolist() for name in shown
            }
    about = sums.examples
    title = f"Skill on {about.data}, {about.number} test examples"
    if bands:
        title += f" (bands: {LEVEL:.0%} intervals)"
    return plotting.lead_curves(
        panels, step=plotting.step_of(about.frame), title=title, bands=bands
    )


def _panels(sums: BlockSums) -> dict[str, Score]:
    """Scores of one value for each lead, by the label of their panel."""
    known, found = sums.verification.scores, {}
    for row in PANELS:
        name = next((x for x in row if x in known), None)
        if name is None or "lead" not in sums.verification.dims(name):
            continue
        label, score = row[name], known[name]
        dims = sums.verification.dims(name)
        coords = sums.verification.coords(name)
        where = {dim: (SINGLE[dim],) for dim in dims if dim in SINGLE}
        mean = tuple(dim for dim in dims if dim not in ("lead", *where))
        if name == "frequency_bias" and "threshold" in dims:
            thresholds = sorted(coords["threshold"])
            at = thresholds[min(BIAS_AT, len(thresholds) - 1)]
            where["threshold"] = (at,)
            mean = tuple(dim for dim in mean if dim != "threshold")
            label += f", events from {at:g} on"
        elif "threshold" in mean:
            label += ", mean over thresholds"
        else:
            units = score.units or unit_of(name, sums.examples.mse_units)
            label += units_text(units)
        if all(x in coords[dim] for dim, (x,) in where.items()):
            found[label] = dataclasses.replace(
                score, where={**score.where, **where}, mean=(*score.mean, *mean)
            )
    return found


def performance_figure(sums: BlockSums):
    """POD against success ratio of all leads together, without pooling."""
    names = ("success_ratio", "pod")
    verification = sums.verification
    total = {
        name: {
            statistic: {n: x.sum(axis=0) for n, x in parts.items()}
            for statistic, parts in of.items()
        }
        for name, of in sums.values.items()
    }
    dims = verification.dims("pod", ("lead",))
    coords = verification.coords("pod", ("lead",))
    first = {dim: coords[dim].index(SINGLE[dim]) for dim in dims if dim in SINGLE}
    place = tuple(first.get(dim, slice(None)) for dim in dims)
    points = {}
    for forecast, of in total.items():
        pair = [verification.value(name, of, ("lead",))[place] for name in names]
        points[forecast] = np.stack(pair, axis=-1).reshape(-1, 2).tolist()
    about = sums.examples
    return performance(
        points,
        thresholds=[f"{x:g}" for x in coords["threshold"]],
        title=f"Performance on {about.data}, {about.number} test examples, all leads",
    )


def spectra_figure(sums: BlockSums, name: str, units: str):
    """Power spectra at the last lead; of several variables, of the first.

    Args:
        sums: by block.
        name: of the statistic.
        units: of the fields as they are shown.
    """
    statistic = sums.verification.statistics[name]
    parts = {
        forecast: {n: x.sum(axis=0)[-1] for n, x in of[name].items()}
        for forecast, of in sums.values.items()
    }
    what = sums.examples.data
    if "variable" in statistic.coords:
        parts = {k: {n: x[0] for n, x in of.items()} for k, of in parts.items()}
        what = f"{statistic.coords['variable'][0]} of {what}"
    power = {forecast: spatial.forecast_power(of) for forecast, of in parts.items()}
    truth = spatial.target_power(next(iter(parts.values())))
    last = lead_label(sums.examples.frame, sums.examples.shape[0])
    return spectra(
        {forecast: x.tolist() for forecast, x in power.items()},
        truth.tolist(),
        wavelengths=statistic.coords["wavelength"],
        units=f"{units}²" if units else "",
        title=f"Power spectra on {what} at {last}",
    )
