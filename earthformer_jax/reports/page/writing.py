"""The page of an evaluation: `report.html`, complete in itself.

It holds what was forecast with what, the data and splits in words, tables, figures and
the animation, the config, and how to do it again: one file without scripts, which loads
nothing, for a browser on a desk or a phone.
"""

import datetime
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from earthformer_jax.data.dataset import Data
from earthformer_jax.data.splits import SPLITS
from earthformer_jax.plotting.style import apart
from earthformer_jax.reports import scoring
from earthformer_jax.reports.page import about as about_lib
from earthformer_jax.reports.page import images, tables
from earthformer_jax.reports.page.about import About
from earthformer_jax.reports.page.figures import caption_of, in_order
from earthformer_jax.reports.page.markup import document, element
from earthformer_jax.reports.page.tidy import Row
from earthformer_jax.reports.scoring import MODEL
from earthformer_jax.reports.verification.skill import references_of
from earthformer_jax.reports.verification.units import units_text

WIDE = {"wide": 1.2, "wider": 2.6}  # classes of figures from this width by height on
MANY_PIXELS = 1100  # of the width, from which a figure is wide as well
SHORT = 3 * 24 * 60  # minutes; a shorter period has times of day
LARGE = 2.0  # from this ratio of errors on, it is given instead of percent


def write(
    path: Path,
    scores: Mapping[str, Any],
    rows: Sequence[Row],
    data: Data,
    about: About,
    pictures: Sequence[Path],
    *,
    restored: bool = False,
) -> None:
    """Writes the page; readers never see a partial file.

    Args:
        path: of the file.
        scores: what scores.json holds.
        rows: of all scores.
        data: what was forecast.
        about: the model and its run.
        pictures: figures and animations, PNG and GIF.
        restored: whether the task is to restore the inputs, and not to forecast.
    """
    what = scores["data"]
    title = f"{about.model} on {what['name']}"
    body = [
        element("h1", title),
        element("p", what["description"], class_="lead"),
        *_in_short(rows, scores),
        element("h2", "What was restored" if restored else "What was forecast"),
        tables.facts(_facts(what, data, about, restored)),
        element("h2", "Scores"),
        *_scores(rows, scores, data),
        element("h2", "Figures"),
        *_figures(pictures),
        element("h2", "How to repeat it"),
        *_repeat(about, path.name),
    ]
    scoring.write_text(path, document(title, *body))


def _in_short(rows: Sequence[Row], scores: Mapping[str, Any]) -> list[ET.Element]:
    """A sentence on the model and its strongest rival, by the mean squared error."""
    errors = {r.forecast: r for r in rows if r.score == "mse" and _is_whole(r)}
    others = {
        name: errors[name]
        for name in references_of(list(scores["forecasts"]))
        if name in errors and np.isfinite(errors[name].value)
    }
    if MODEL not in errors or not others:
        return []
    rival = min(others, key=lambda name: others[name].value)
    own, its = errors[MODEL].value, others[rival].value
    text = (
        f"In short: the mean squared error of the model is {tables.number(own)}, that "
        f"of the best reference ({tables.title_of(rival)}) is {tables.number(its)}"
        f"{units_text(scores['data']['mse_units'])}. "
    )
    if its > 0 and np.isfinite(own):
        text += f"The error of the model is {_relative(own / its)}"
        gaps = scores["forecasts"][MODEL].get("differences", {}).get(rival, {})
        gap = tables.difference(gaps.get("mse"))
        text += f"; difference {gap}." if gap else "."
    return [element("p", text)]


def _relative(ratio: float) -> str:
    """ "12.3 % lower", or "3.1 times as large"."""
    if ratio >= LARGE:
        return f"{ratio:.3g} times as large"
    if ratio == 1:
        return "the same"
    return f"{abs(100 * (ratio - 1)):.1f} % {'lower' if ratio < 1 else 'higher'}"


def _is_whole(row: Row) -> bool:
    return row.lead is None and not (row.part or row.threshold or row.scale)


def _facts(
    what: Mapping[str, Any], data: Data, about: About, restored: bool
) -> dict[str, str]:
    """What a reader has to know before the numbers."""
    example = data.test[0]
    (t, *_), (k, h, w, c) = np.shape(example["inputs"]), np.shape(example["targets"])
    between = apart(data.display.frame)
    channels = [
        f"{x.name} ({x.units})" if x.units else x.name for x in data.display.channels
    ]
    trained = f"checkpoint of step {about.step}" if about.step else "nothing is trained"
    if about.step and not about.complete:
        trained += "; the training was not complete"
    found = {
        "Model": f"{about.model}, {about.parameters:,} parameters; {trained}",
        "Task": f"{k} frames{between}, restored from what the model keeps of them"
        if restored
        else f"{t} frames in, {k} frames out{between}",
        "Fields": f"{', '.join(channels[:c])}; {h} × {w} cells",
    }
    for split in SPLITS:
        text = f"{len(getattr(data, split))} examples"
        if period := _period(data, split):
            text += f", {period}"
        found[split.capitalize()] = text
    if "protocol" in what:
        found["Protocol"] = f"{what['protocol']}, {what.get('protocol_sha256', '')}"
    return found


def _period(data: Data, split: str) -> str:
    """The first and the last date of a split; "" if it has none that mean anything."""
    if not scoring.is_dated(data, split):
        return ""
    source = getattr(data, split)
    ends = [np.asarray(source[i]["time"]) for i in (0, len(source) - 1)]
    first, last = min(x.min() for x in ends), max(x.max() for x in ends)
    dates = [str(np.datetime64(int(x), "m")) for x in (first, last)]
    if last - first < SHORT:  # days alone would be the same in all splits
        dates = [f"{x.replace('T', ' ')} UTC" for x in dates]
    else:
        dates = [x[:10] for x in dates]
    return f"{dates[0]} to {dates[1]} (inputs included)"


def _scores(
    rows: Sequence[Row], scores: Mapping[str, Any], data: Data
) -> list[ET.Element]:
    """Tables: all leads, thresholds, and folded those by lead."""
    made = []
    channels = {channel.name for channel in data.display.channels}
    parts = dict.fromkeys(r.part for r in rows if r.lead is None)
    own = {"", *channels}
    groups = [own, *({part} for part in parts if part not in own)]
    for group in groups:
        found = tables.overall(rows, group)
        if found is not None:
            made += [element("h3", *group)] if "" not in group else []
            made.append(found)
    made += tables.by_threshold(rows, first=True)
    if (found := tables.differences(scores, rows)) is not None:
        made.append(found)
    if text := _of_intervals(scores):
        made.append(element("p", text, class_="soft"))
    folded = {
        "Further scores": _present(
            tables.overall(rows, x, first=False) for x in groups
        ),
        "Scores by lead": tables.by_lead(rows, data.display.frame),
        "Further scores by threshold": tables.by_threshold(rows, first=False),
    }
    for summary, found in folded.items():
        if found:
            made.append(element("details", element("summary", summary), *found))
    return made


def _present(found: Iterable[ET.Element | None]) -> list[ET.Element]:
    return [x for x in found if x is not None]


def _of_intervals(scores: Mapping[str, Any]) -> str:
    """What the numbers in brackets are."""
    about = scores["data"].get("intervals")
    if about is None:
        return ""
    if about.get("none_because"):
        return f"No intervals: {about['none_because']}."
    return (
        f"In brackets: the interval that holds {about['level']:.0%} of "
        f"{about['samples']} bootstrap samples."
    )


def _figures(pictures: Sequence[Path]) -> list[ET.Element]:
    """The figures with their captions, in the order of the report."""
    ordered = in_order(pictures)
    made = []
    for path, (uri, width, height) in zip(ordered, images.encode(ordered), strict=True):
        caption = caption_of(path)
        # Where a wide figure would be too small to read, it scrolls.
        kind = ["wide"] if width > MANY_PIXELS else []
        kind += [name for name, ratio in WIDE.items() if width > ratio * height]
        wide = {"class_": kind[-1]} if kind else {}
        image = element(
            "img", src=uri, alt=caption, width=str(width), height=str(height), **wide
        )
        box = element("div", image, class_="scroll", tabindex="0")
        made.append(element("figure", box, element("figcaption", caption)))
    return made or [element("p", "This evaluation has no figures.")]


def _repeat(about: About, name: str) -> list[ET.Element]:
    made, table = [], Path(name).stem.replace("report", "scores", 1)
    for what, command in about_lib.commands(about).items():
        made += [element("h3", what), element("pre", command)]
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    found = {
        "Seed": f"{about.config.get('seed', 0)} of the model, "
        f"{about.config.get('data', {}).get('seed', 'none')} of the data",
        "Checkpoint": f"step {about.step}" if about.step else "none: nothing to train",
        "Device": about.device,
        **about_lib.versions(),
        "Written": f"{now}, as {name} in {about.workdir}",
    }
    config = element("pre", about_lib.config_text(about))
    made += [
        element("h3", "With what"),
        tables.facts(found),
        element("details", element("summary", "The whole config"), config),
        element(
            "p",
            f"All numbers of this page are in {table}.csv (one row for each) and "
            f"{table}.json beside it.",
            class_="soft",
        ),
    ]
    return made
