"""What the page on the skill of El Niño forecasts shows."""

import textwrap

import numpy as np

from earthformer_jax import plotting
from earthformer_jax.data.dataset import Data
from earthformer_jax.metrics import index_skill
from earthformer_jax.metrics.bootstrap import LEVEL, SAMPLES
from earthformer_jax.reports.nino import skill as skill_lib
from earthformer_jax.reports.nino.skill import THRESHOLD, Skill
from earthformer_jax.reports.scoring import MODEL

HITS_LEAD = 6
LINE = 150  # letters in a line of the subtitle


def content(skill: Skill, data: Data, index: str) -> plotting.SkillPage:
    """The page of the first forecast next to the strongest reference.

    Args:
        skill: of all forecasts.
        data: whose test windows they are of.
        index: name of the index of "correlation".
    """
    windows, first = skill.windows, skill.windows.names[0]
    other = skill.strongest
    if other == first:
        other = None
    months, _ = index_skill.by_target_month(
        windows.forecast[..., 0], windows.observed[..., 0], windows.start_month
    )
    categories = skill_lib.category_scores(skill)
    hits_lead = min(HITS_LEAD, categories["hits"].shape[1])
    gap = gap_band = months_gap = error_ratio = None
    if other is not None:
        at = windows.names.index(other)
        gap, gap_band = skill.difference("correlation", first, other)
        months_gap = months[0] - months[at]
        error = windows.map_error
        room = np.where(error[at] > 0, error[at], np.nan)
        error_ratio = 1 - error[0] / room

    def by_name(score):
        return {name: skill.value(score, name) for name in windows.names}

    return plotting.SkillPage(
        title=_title(skill),
        subtitle=_subtitle(skill, data),
        index=index,
        correlation=by_name("correlation"),
        error=by_name("rmse"),
        bands={
            "correlation": skill.interval("correlation", first),
            "error": skill.interval("rmse", first),
        },
        level=LEVEL,
        other=other or "",
        gap=gap,
        gap_band=gap_band,
        months=months[0],
        months_gap=months_gap,
        heidke=dict(zip(windows.names, categories["heidke"], strict=True)),
        hits=categories["hits"][0, hits_lead - 1],
        hits_lead=hits_lead,
        threshold=THRESHOLD,
        maps=windows.map_correlation[0],
        error_ratio=error_ratio,
        map_leads=windows.map_leads.tolist(),
        latitude=data.coordinates["latitude"],
        longitude=data.coordinates["longitude"],
    )


def _title(skill: Skill) -> str:
    windows = len(skill.windows.start_month)
    text = f"Skill of El Niño forecasts in {windows} test windows"
    if MODEL in skill.windows.names:
        text += "\n" + skill_lib.verdict(skill, plotting.called)
    return text


def _subtitle(skill: Skill, data: Data) -> str:
    blocks = "single windows, which are independent"
    if skill.block > 1:
        blocks = f"blocks of {skill.block} successive windows"
    intervals = (
        f"Intervals hold {LEVEL:.0%} of {SAMPLES} samples of {blocks}; that "
        "of a difference is of both forecasts on the same samples. "
    )
    if skill.no_intervals:
        intervals = f"No intervals: {skill.no_intervals}. "
    smoother = (
        "If the values come from an analysis that also uses later months, all "
        "forecasts that remember look better than they would in real time."
    )
    if not data.spans:  # generated or independent windows, not a series of analyses
        smoother = ""
    return textwrap.fill(f"{data.description}. {intervals}{smoother}", LINE)
