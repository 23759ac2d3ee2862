"""Several models and references on the same test examples: table, files, figure."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from earthformer_jax import plotting
from earthformer_jax.metrics.bootstrap import LEVEL
from earthformer_jax.plotting import diagrams
from earthformer_jax.reports import scoring
from earthformer_jax.reports.scoring import NOT_REFERENCES
from earthformer_jax.reports.verification.skill import Sampled, best, verdict

FILES = ("comparison.json", "comparison.csv", "comparison.png")
MOST_BANDS = 4  # of more forecasts, the models and the best reference have one
COLUMNS = ("forecast", "score", "value", "low", "high", "units")
COLUMNS += ("minus", "difference", "difference_low", "difference_high", "p_value")


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Scores of several forecasts of the same test examples, sampled alike.

    Attributes:
        data: short name of what was forecast.
        about: what was forecast, one line.
        examples: how many examples there are, in blocks of what, one line.
        checksum: of the examples; "": none.
        models: the workdir of each model, by its name.
        steps: optimiser steps of each model; 0: not trained, or not known.
        numbers: scores that are single numbers; those in `headline` come first.
        headline: scores of the table.
        curves: scores of each lead time, for the figure: label, score.
        step: length and unit of the time between lead times, (5, "min").
        left_out: scores that not all files have.
    """

    data: str
    about: str
    examples: str
    checksum: str
    models: Mapping[str, str]
    steps: Mapping[str, int]
    numbers: Sequence[Sampled]
    headline: Sequence[str]
    curves: Sequence[tuple[str, Sampled]]
    step: tuple[float, str]
    left_out: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        """All forecasts, the best by the first score first."""
        first = self._number(self.headline[0])
        left, found = list(first.samples), []
        while left:
            found.append(best(first, left) or left[0])
            left.remove(found[-1])
        return found

    @property
    def strongest(self) -> str | None:
        """The best reference by the first score; None: there is none."""
        references = [
            n for n in self.names if n not in self.models and n not in NOT_REFERENCES
        ]
        return references[0] if references else None

    def _number(self, name: str) -> Sampled:
        return next(score for score in self.numbers if score.name == name)

    def rival_of(self, name: str) -> str | None:
        """What a forecast is compared with: the best reference, of that the best model.

        Without references it is the best of the others.
        """
        others = [n for n in self.names if n != name and n not in NOT_REFERENCES]
        if self.strongest not in (None, name):
            return self.strongest
        models = [n for n in others if n in self.models]
        return next(iter(models or others), None)


def table(comparison: Comparison) -> str:
    """The headline scores with intervals, and paired differences, as text."""
    names, scores = comparison.names, comparison.headline
    shown = [comparison._number(name) for name in scores]
    width = max(map(len, names))
    heads = [f"{score.name} ({_better(score)})" for score in shown]
    rows = {name: [_cell(score, name) for score in shown] for name in names}
    widths = [
        max(len(head), *(len(row[i]) for row in rows.values()))
        for i, head in enumerate(heads)
    ]

    def line(name: str, cells: Sequence[str]) -> str:
        padded = [f"{x:<{w}}" for x, w in zip(cells, widths, strict=True)]
        return "  ".join([f"{name:<{width}}", *padded]).rstrip()

    lines = [comparison.about, comparison.examples]
    steps = [f"{name} {n:,}" for name, n in comparison.steps.items() if n]
    lines += [f"Training steps: {', '.join(steps)}"] if steps else []
    lines += [line("", heads)]
    lines += [line(name, rows[name]) for name in names]
    lines += ["", "Paired differences on the same samples:"]
    pairs = [(name, comparison.rival_of(name)) for name in comparison.models]
    pairs += _between(list(comparison.models), names)
    for a, b in pairs:
        if b is not None:
            gaps = "; ".join(_gap(score, a, b) for score in shown)
            lines.append(f"{a} minus {b}: {gaps}")
    if comparison.left_out:
        lines.append(f"Not in all files: {', '.join(comparison.left_out)}")
    return "\n".join(lines)


def _between(models: list[str], order: list[str]) -> list[tuple[str, str]]:
    """Each pair of models, the better one first."""
    ordered = sorted(models, key=order.index)
    return [(a, b) for i, a in enumerate(ordered) for b in ordered[i + 1 :]]


def _better(score: Sampled) -> str:
    return f"{score.better} is better"


def _cell(score: Sampled, name: str) -> str:
    low, high = score.interval(name)
    value = f"{float(score.value(name)):.4g}"
    return value if np.isnan(low) else f"{value} ({low:.4g} to {high:.4g})"


def _gap(score: Sampled, a: str, b: str) -> str:
    gap = score.difference(a, b)
    low, high = gap.interval
    if np.isnan(low):
        return f"{score.name} {float(gap.value):+.3g}"
    return (
        f"{score.name} {float(gap.value):+.3g} ({low:+.3g} to {high:+.3g}), "
        f"p = {float(gap.p_value):.2g}, {verdict(score, a, b)}"
    )


def content(comparison: Comparison) -> dict[str, Any]:
    """What comparison.json holds.

    Returns:
        {"about", "examples", "examples_sha256", "level", "samples", "models": {name:
        workdir}, "steps": {name: number or None}, "strongest_reference", "scores":
        {score: {"better", "units", "forecasts": {name: {"value", "interval"}},
        "differences": {name: {other: {"difference", "interval", "p_value",
        "verdict"}}}}}}.
    """
    scores, names = {}, comparison.names
    for score in comparison.numbers:
        scores[score.name] = {
            "better": score.better,
            "units": score.units,
            "forecasts": {
                name: {
                    "value": float(score.value(name)),
                    "interval": score.interval(name).tolist(),
                }
                for name in names
            },
            "differences": {
                a: {b: _difference(score, a, b) for b in names if b != a} for a in names
            },
        }
    return {
        "about": comparison.about,
        "examples": comparison.examples,
        "examples_sha256": comparison.checksum or None,
        "level": LEVEL,
        "samples": len(comparison.numbers[0].samples[names[0]]) - 1,
        "models": dict(comparison.models),
        "steps": {name: n or None for name, n in comparison.steps.items()},
        "strongest_reference": comparison.strongest,
        "left_out": list(comparison.left_out),
        "scores": scores,
    }


def _difference(score: Sampled, a: str, b: str) -> dict[str, Any]:
    gap = score.difference(a, b)
    return {
        "difference": float(gap.value),
        "interval": gap.interval.tolist(),
        "p_value": float(gap.p_value),
        "verdict": verdict(score, a, b),
    }


def as_csv(made: Mapping[str, Any]) -> str:
    """The numbers of `content` as a tidy table: a row for each pair and score."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)

    def numbers(*values):
        return ["" if x is None or not np.isfinite(x) else repr(x) for x in values]

    for name, score in made["scores"].items():
        for a, own in score["forecasts"].items():
            start = [a, name, *numbers(own["value"], *own["interval"]), score["units"]]
            for b, gap in score["differences"][a].items():
                values = gap["difference"], *gap["interval"], gap["p_value"]
                writer.writerow([*start, b, *numbers(*values)])
    return file.getvalue()


def figure(comparison: Comparison):
    """Scores by lead time, and their differences to the best reference, with bands."""
    names = comparison.names
    baseline = comparison.strongest or names[0]
    panels = []
    for label, score in comparison.curves:
        values = {n: (score.value(n), score.interval(n)) for n in names}
        gaps = {n: score.difference(n, baseline) for n in names if n != baseline}
        differences = {n: (gap.value, gap.interval) for n, gap in gaps.items()}
        panels.append((f"{label} ({_better(score)})", values, differences))
    return diagrams.comparison(
        panels,
        baseline=baseline,
        banded=names if len(names) <= MOST_BANDS else [*comparison.models, baseline],
        step=comparison.step,
        title=f"{comparison.data}, {comparison.examples}",
    )


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes comparison.json, comparison.csv and, if there is one, comparison.png.

    Returns:
        the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    as_json, table_file, picture = (folder / name for name in FILES)
    made = content(comparison)
    scoring.write_json(as_json, made)
    scoring.write_text(table_file, as_csv(made))
    if not comparison.curves:
        return [as_json, table_file]
    plotting.save(figure(comparison), picture)
    return [as_json, table_file, picture]
