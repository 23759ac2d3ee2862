"""Scores of El Niño forecasts with intervals, and their differences, from windows."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from earthformer_jax.data.dataset import Data
from earthformer_jax.metrics import bootstrap, index_skill
from earthformer_jax.metrics.bootstrap import LEVEL
from earthformer_jax.metrics.enso import WINDOW
from earthformer_jax.reports.nino.windows import Windows
from earthformer_jax.reports.scoring import MODEL, NOT_REFERENCES

BLOCK_MONTHS = 36  # starts that are drawn together: an El Niño and what follows it
TABLE_LEADS = 12  # leads in "correlation_mean"
THRESHOLD = 0.5  # K, of the categories El Niño and La Niña
NO_DIFFERENCE = 1e-3  # correlations that are closer are not told apart
# Scores of the monthly Niño3.4 index, of its three-month means, and of the map. An
# interval of each and of each difference is in scores.json.
SCORES = (
    "correlation",
    "correlation_mean",
    "c_nino34_m",
    "rmse",
    "mse",
)
SMALLER_IS_BETTER = ("rmse", "mse")


@dataclasses.dataclass(frozen=True, eq=False)
class Skill:
    """Scores of all forecasts on all windows, and on samples of them.

    Attributes:
        windows: what the scores are of.
        index_months: 1 or 3, months in the index of "correlation".
        block: windows that a sample keeps together, 1 if all are independent.
        samples: score -> `[1 + s, f, ...]`; the first is the score itself. Forecasts
            are scored on the same samples. "correlation" and "rmse" are `[k]`, by lead;
            the keys are `SCORES`.
        no_intervals: why there are no samples; empty if there are some.
    """

    windows: Windows
    index_months: int
    block: int
    samples: Mapping[str, np.ndarray]
    no_intervals: str

    def value(self, score: str, name: str) -> np.ndarray:
        """A score of a forecast."""
        return self.samples[score][0, self.windows.names.index(name)]

    def interval(self, score: str, name: str) -> np.ndarray:
        """The interval of a score of a forecast, `[..., 2]`."""
        at = self.windows.names.index(name)
        return bootstrap.interval(self.samples[score][:, at], LEVEL)

    def difference(self, score: str, a: str, b: str) -> tuple[np.ndarray, np.ndarray]:
        """A score of forecast `a` minus that of `b`, and its paired interval."""
        names = self.windows.names
        samples = self.samples[score]
        gap = samples[:, names.index(a)] - samples[:, names.index(b)]
        return gap[0], bootstrap.interval(gap, LEVEL)

    @property
    def references(self) -> list[str]:
        """The forecasts that others are compared with."""
        return [name for name in self.windows.names if name not in NOT_REFERENCES]

    @property
    def strongest(self) -> str | None:
        """The reference with the largest mean correlation; None without references."""
        known = [
            name
            for name in self.references
            if np.isfinite(self.value("correlation_mean", name))
        ]
        means = {name: float(self.value("correlation_mean", name)) for name in known}
        return max(means, key=means.__getitem__) if means else None


def compute(windows: Windows, index_months: int, block: int) -> Skill:
    """Scores all forecasts on all windows and on block-bootstrap samples.

    Args:
        windows: forecasts and truth.
        index_months: 1 or 3, months in the index of "correlation".
        block: windows that a sample keeps together.
    """
    number = len(windows.start_month)
    counts = bootstrap.draw(number, block)
    monthly, observed = windows.forecast[..., 0], windows.observed[..., 0]
    three_month = index_skill.correlation(
        counts, windows.three_month(), windows.observed_three_month
    )
    chosen = three_month
    if index_months != WINDOW:
        chosen = index_skill.correlation(counts, monthly, observed)
    samples = {
        "correlation": chosen,
        "correlation_mean": chosen[..., :TABLE_LEADS].mean(axis=-1),
        "c_nino34_m": three_month.mean(axis=-1),
        "rmse": index_skill.rmse(counts, monthly, observed),
        "mse": index_skill.mean(counts, windows.squared_error[..., None])[..., 0],
    }
    reason = ""
    if len(counts) == 1:
        least = bootstrap.LEAST_BLOCKS
        reason = (
            f"{number} test windows are too few for intervals: {least} blocks of "
            f"{block} are needed"
        )
    return Skill(windows, index_months, block, samples, reason)


def block_of(data: Data) -> int:
    """Test windows that start within `BLOCK_MONTHS`; 1 if windows are independent."""
    spans = data.spans.get("test")
    if spans is None or len(spans) < 2:
        return 1
    step = float(np.median(np.abs(np.diff(spans.target))))
    return max(1, round(BLOCK_MONTHS / max(step, 1)))


def added_scores(skill: Skill) -> dict[str, dict]:
    """What scores.json holds of each forecast beside the streamed scores, by name.

    Returns:
        "rmse" `[k]` of the monthly Niño3.4 in K; "regions", correlation and error of
        every Niño region by lead; "categories", by lead; "intervals" of the scores of
        `SCORES`; and "differences", each with its interval: of the model to every
        reference, of the others to the reference that is best in the score.
    """
    found: dict[str, dict] = {}
    regions, categories = region_scores(skill.windows), category_scores(skill)
    best = {key: _best(skill, key) for key in SCORES}
    for f, name in enumerate(skill.windows.names):
        found[name] = {
            "rmse": skill.value("rmse", name).tolist(),
            "regions": {
                region: {key: values[f].tolist() for key, values in both.items()}
                for region, both in regions.items()
            },
            "categories": {key: x[f].tolist() for key, x in categories.items()},
            "intervals": {key: skill.interval(key, name).tolist() for key in SCORES},
            "differences": {
                other: {
                    key: {"difference": gap.tolist(), "interval": limits.tolist()}
                    for key in keys
                    for gap, limits in [skill.difference(key, name, other)]
                }
                for other in skill.references
                for keys in [[k for k in SCORES if name == MODEL or best[k] == other]]
                if keys and other != name
            },
        }
    return found


def _best(skill: Skill, key: str) -> str | None:
    """The reference that is best in a score, by the mean over lead times."""
    means = {name: float(skill.value(key, name).mean()) for name in skill.references}
    known = {name: mean for name, mean in means.items() if np.isfinite(mean)}
    wanted = min if key in SMALLER_IS_BETTER else max
    return wanted(known, key=known.__getitem__) if known else None


def region_scores(windows: Windows) -> dict[str, dict[str, np.ndarray]]:
    """ "correlation" and "rmse" (K) `[f, k]` of the index of every region, by name."""
    once = np.ones((1, len(windows.start_month)))
    found = {}
    for r, region in enumerate(windows.regions):
        pair = windows.forecast[..., r], windows.observed[..., r]
        found[region] = {
            "correlation": index_skill.correlation(once, *pair)[0],
            "rmse": index_skill.rmse(once, *pair)[0],
        }
    return found


def category_scores(skill: Skill) -> dict[str, np.ndarray]:
    """La Niña, neutral and El Niño: "proportion_correct", "heidke" and "hits" by lead.

    "hits" `[f, k, 3, 3]` are the numbers of windows by the forecast, then by the
    observed category. The index is that of "correlation".
    """
    windows = skill.windows
    forecast, observed = windows.forecast[..., 0], windows.observed[..., 0]
    if skill.index_months == WINDOW:
        forecast, observed = windows.three_month(), windows.observed_three_month
    hits = index_skill.hit_table(forecast, observed, THRESHOLD)
    correct, score = index_skill.heidke(hits)
    return {"proportion_correct": correct, "heidke": score, "hits": hits}


def about(skill: Skill) -> dict:
    """What the intervals are: a part of "data" in scores.json."""
    return {
        "level": LEVEL,
        "samples": len(skill.samples["mse"]) - 1,
        "block_windows": skill.block,
        "none_because": skill.no_intervals or None,
        "strongest_reference": skill.strongest,
        "category_threshold_K": THRESHOLD,
    }


def summary(skill: Skill) -> list[str]:
    """Intervals of the model, and its difference to the strongest reference, as text.

    Returns:
        lines; without a model or a reference, fewer.
    """
    if MODEL not in skill.windows.names:
        return []
    if skill.no_intervals:
        return [f"No intervals: {skill.no_intervals}."]
    blocks = "independent windows"
    if skill.block > 1:
        blocks = f"blocks of {skill.block} successive windows"
    lines = [
        f"Model, with {LEVEL:.0%} intervals from {blocks}: "
        + ", ".join(
            f"{label} {skill.value(key, MODEL):.{digits}} "
            f"({_limits(skill.interval(key, MODEL), f'.{digits}')})"
            for key, label, digits in _SUMMARY
        )
    ]
    other = skill.strongest
    if other is None:
        return lines
    gaps = {key: skill.difference(key, MODEL, other) for key, _, _ in _SUMMARY}
    mean, c_m, mse = (gaps[key] for key, _, _ in _SUMMARY)
    share = 100 / float(skill.value("mse", other) or np.nan)
    return [
        *lines,
        f"{verdict(skill)}: mean {mean[0]:+.2f} ({_limits(mean[1], '+.2f')}), "
        f"C-M {c_m[0]:+.2f} ({_limits(c_m[1], '+.2f')}), "
        f"MSE {share * mse[0]:+.1f} % ({_limits(share * mse[1], '+.1f')} %)",
    ]


_SUMMARY = (
    ("correlation_mean", "mean", "2f"),
    ("c_nino34_m", "C-M", "2f"),
    ("mse", "MSE", "3g"),
)


def verdict(skill: Skill, called: Callable[[str], str] | None = None) -> str:
    """The model next to the strongest reference, by the mean correlation, in words.

    It is better or worse where the interval of the difference lies beyond
    `NO_DIFFERENCE`, as it does not if both make the same forecast but for rounding.

    Args:
        skill: of all forecasts.
        called: what the text calls a forecast of that name; None: "the best reference,
            NAME".
    """
    other = skill.strongest
    if other is None:
        return "There is no reference to compare with"
    if skill.no_intervals:
        return f"The best reference is {other if called is None else called(other)}"
    name = f"the best reference, {other}" if called is None else called(other)
    _, (low, high) = skill.difference("correlation_mean", MODEL, other)
    comparison = "as good as"
    if low > NO_DIFFERENCE:
        comparison = "better than"
    elif high < -NO_DIFFERENCE:
        comparison = "worse than"
    return f"By correlation the model is {comparison} {name}"


def _limits(limits: np.ndarray, form: str) -> str:
    return " to ".join(format(float(x), form) for x in limits)
