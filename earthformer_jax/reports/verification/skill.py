"""Scores of forecasts with intervals, and their paired differences, from block sums."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from earthformer_jax.metrics import bootstrap
from earthformer_jax.metrics.bootstrap import LEAST_BLOCKS, LEVEL, SAMPLES
from earthformer_jax.metrics.verification import (
    HIGHER,
    LOWER,
    NEAR_ONE,
    Verification,
)
from earthformer_jax.reports.scoring import MODEL, NOT_REFERENCES
from earthformer_jax.reports.verification.sums import BlockSums
from earthformer_jax.reports.verification.units import unit_of

DIGITS = 4  # significant, of intervals: their own error is far larger
# Scores that are named in one line: the first of each row that there is.
SHORT = (("mse", "frame_mse", "rmse"), ("csi_m", "ssim", "acc", "mae"))


@dataclasses.dataclass(frozen=True, eq=False)
class Sampled:
    """A score of some forecasts on all test examples, and on samples of them.

    Attributes:
        name: of the score.
        dims: the axes of a value.
        coords: what the positions along each stand for.
        better: as of `metrics.verification.Score`.
        units: of the values; "1": none; "": not known.
        samples: by forecast `[1 + s, *dims]`; the first is the score itself. All
            forecasts have the same samples.
        blocks: of examples that are drawn; None: blocks overlap (`bootstrap.interval`).
    """

    name: str
    dims: tuple[str, ...]
    coords: Mapping[str, tuple]
    better: str
    units: str
    samples: Mapping[str, np.ndarray]
    blocks: int | None

    def value(self, forecast: str) -> np.ndarray:
        """The score of a forecast, `[*dims]`."""
        return self.samples[forecast][0]

    def interval(self, forecast: str) -> np.ndarray:
        """Its interval, `[*dims, 2]`; NaN if there are too few blocks."""
        samples = self.samples[forecast]
        return bootstrap.interval(samples, LEVEL, _known_blocks(samples, self.blocks))

    def difference(self, a: str, b: str) -> bootstrap.Difference:
        """The score of forecast `a` minus that of `b`."""
        x, y = self.samples[a], self.samples[b]
        return bootstrap.paired(x, y, LEVEL, _known_blocks(x, self.blocks))

    def numbers(self) -> Iterator["Sampled"]:
        """Each single number of the score, named as `number_name`."""
        for at in np.ndindex(*(len(self.coords[dim]) for dim in self.dims)):
            place = {
                dim: self.coords[dim][i] for dim, i in zip(self.dims, at, strict=True)
            }
            samples = {name: x[:, *at] for name, x in self.samples.items()}
            yield dataclasses.replace(
                self,
                name=number_name(self.name, place),
                dims=(),
                coords={},
                samples=samples,
            )

    def curve(self) -> "Sampled":
        """The score by lead time alone, at the first place along its other axes."""
        at = tuple(slice(None) if dim == "lead" else 0 for dim in self.dims)
        samples = {name: x[:, *at] for name, x in self.samples.items()}
        coords = {"lead": self.coords["lead"]}
        return dataclasses.replace(self, dims=("lead",), coords=coords, samples=samples)


def number_name(score: str, place: Mapping[str, Any]) -> str:
    """The name of one number of a score, as in scores.json: "csi_16_pool4".

    Args:
        score: its name.
        place: the position along each axis. Single cells (a pool or a
            window of 1) are not named.
    """
    for dim, x in place.items():
        if dim == "threshold":
            score += f"_{x:g}"
        elif dim in ("variable", "region"):
            score += f"_{x}"
        elif dim not in ("pool", "window") or x != 1:
            score += f"_{dim}{x:g}"
    return score


def _known_blocks(samples: np.ndarray, blocks: int | None) -> int | None:
    return blocks if len(samples) > 1 else None


def sampled(
    sums: BlockSums, *, names: Sequence[str] | None = None, by_lead: bool = False
) -> Iterator[Sampled]:
    """Scores on all test examples and on samples of blocks, one after the other.

    Args:
        sums: by block.
        names: of the scores; None: all.
        by_lead: whether to make the score of each lead time; otherwise sums are added
            over lead times, unless the score is itself a mean over them.
    """
    counts = bootstrap.draw(sums.blocks, 1)
    for name in sums.verification.scores if names is None else names:
        score = sums.verification.scores[name]
        if by_lead:
            score = dataclasses.replace(
                score,
                add=tuple(x for x in score.add if x != "lead"),
                mean=tuple(x for x in score.mean if x != "lead"),
            )
        verification = Verification(sums.verification.statistics, {name: score})
        add = ("lead",) if "lead" in verification.dims(name) and not by_lead else ()
        coords = dict(verification.coords(name, add))
        dims = verification.dims(name, add)
        if "lead" in dims:
            coords["lead"] = tuple(range(1, sums.examples.shape[0] + 1))
        yield Sampled(
            name,
            dims,
            coords,
            score.better,
            score.units or _units(name, dims, sums.examples.mse_units),
            {
                forecast: _samples(verification, name, add, counts, of)
                for forecast, of in sums.values.items()
            },
            sums.blocks,
        )


def _units(score: str, dims: tuple[str, ...], squared: str) -> str:
    """The units of a score; "" where each variable has its own."""
    units = unit_of(score.removesuffix("_m"), squared)
    return "" if "variable" in dims and units != "1" else units


def _samples(
    verification: Verification,
    name: str,
    add: tuple[str, ...],
    counts: np.ndarray,
    sums: Mapping[str, Mapping[str, np.ndarray]],
) -> np.ndarray:
    """A score of one forecast `[1 + s, *dims]`."""
    key = verification.scores[name].statistic
    parts = sums[key]
    if add:  # first, so that fewer sums are added for every sample
        parts = {n: x.sum(axis=1, keepdims=True) for n, x in parts.items()}
    drawn = {n: bootstrap.totals(counts, x) for n, x in parts.items()}
    return verification.value(name, {key: drawn}, add)


def references_of(names: Sequence[str]) -> list[str]:
    """The forecasts that others are compared with."""
    return [name for name in names if name not in NOT_REFERENCES]


def add(scores: dict[str, Any], sums: BlockSums) -> None:
    """Adds to what scores.json holds, in place.

    - scores["data"]["intervals"]: what the intervals are (`about`);
    - scores["verification"]: {score: {"better", "units"}};
    - of each forecast "verification", every number of all lead times together by
      `number_name`; "intervals" of these, and of those by lead that are not of events
      ("mse_by_lead"); and "differences" {reference: {name: {"difference", "interval",
      "p_value"}}}: of the model to every reference, of the others to the reference
      that is best in this number.

    Args:
        scores: with "data" and "forecasts".
        sums: of the same forecasts.
    """
    scores["data"]["intervals"] = about(sums)
    scores["verification"] = {}
    forecasts = scores["forecasts"]
    for name in sums.values:
        forecasts[name] |= {"verification": {}, "intervals": {}, "differences": {}}
    for score in sampled(sums):
        about_it = {"better": score.better, "units": score.units}
        scores["verification"][score.name] = about_it
        for number in score.numbers():
            _add_number(forecasts, number)
    by_lead = [
        name
        for name in sums.verification.scores
        if sums.verification.dims(name) == ("lead",)
    ]
    for score in sampled(sums, names=by_lead, by_lead=True):
        for name in sums.values:
            limits = _rounded(score.interval(name))
            forecasts[name]["intervals"][f"{score.name}_by_lead"] = limits


def _add_number(forecasts: Mapping[str, Any], number: Sampled) -> None:
    references = references_of(list(number.samples))
    strongest = best(number, references)
    for name in number.samples:
        entry = forecasts[name]
        entry["verification"][number.name] = number.value(name).tolist()
        entry["intervals"][number.name] = _rounded(number.interval(name))
        for other in references:
            if other != name and (name == MODEL or other == strongest):
                gap = number.difference(name, other)
                entry["differences"].setdefault(other, {})[number.name] = {
                    "difference": _rounded(gap.value),
                    "interval": _rounded(gap.interval),
                    "p_value": _rounded(gap.p_value),
                }


def about(sums: BlockSums) -> dict[str, Any]:
    """What the intervals are, and of which examples."""
    few = sums.blocks < LEAST_BLOCKS
    return {
        "level": LEVEL,
        "samples": 0 if few else SAMPLES,
        "blocks": sums.blocks,
        "block": sums.examples.block,
        "none_because": why_none(sums) or None,
        "examples_sha256": sums.examples.checksum,
    }


def why_none(sums: BlockSums) -> str:
    """Why there are no intervals; empty if there are some."""
    if sums.blocks >= LEAST_BLOCKS:
        return ""
    number = sums.examples.number
    are = "examples are" if number != 1 else "example is"
    return (
        f"{number} test {are} {sums.blocks} block{'s' * (sums.blocks != 1)} "
        f"({sums.examples.block} each): at least {LEAST_BLOCKS} are needed"
    )


def summary(sums: BlockSums, strongest: str) -> list[str]:
    """Intervals of the model, and its differences to a reference, as text.

    Args:
        sums: by block.
        strongest: the reference.
    """
    if why := why_none(sums):
        return [f"No intervals: {why}."]
    names = short_names(sums)
    if MODEL not in sums.values or not names:
        return []
    chosen = [next(score.numbers()) for score in sampled(sums, names=names)]
    values, gaps = [], []
    for score in chosen:
        low, high = score.interval(MODEL)
        values.append(
            f"{score.name} {score.value(MODEL):.3g} ({low:.3g} to {high:.3g})"
        )
        gap = score.difference(MODEL, strongest)
        low, high = gap.interval
        gaps.append(
            f"{score.name} {gap.value:+.2g} ({low:+.2g} to {high:+.2g}), "
            f"p = {gap.p_value:.2g}, {verdict(score, MODEL, strongest)}"
        )
    return [
        f"Model, with {LEVEL:.0%} intervals from {sums.blocks} blocks "
        f"({sums.examples.block} each): {', '.join(values)}",
        f"Model minus {strongest}, paired: {'; '.join(gaps)}",
    ]


def short_names(sums: BlockSums) -> list[str]:
    """The scores that are named in one line, drawn, and come first in tables."""
    rows = [[name for name in row if name in sums.verification.scores] for row in SHORT]
    return [row[0] for row in rows if row]


def verdict(score: Sampled, a: str, b: str) -> str:
    """Whether `a` is "better" or "worse" than `b`, or "not told apart".

    Only of scores that are single numbers. They are told apart where the interval of
    the difference does not hold 0; where a score is best near a value, of the distance
    to it.
    """
    x, y = (_goodness(score.samples[name], score.better) for name in (a, b))
    gap = bootstrap.paired(x, y, LEVEL, _known_blocks(x, score.blocks))
    low, high = gap.interval
    if not (low > 0 or high < 0):
        return "not told apart"
    return "better" if low > 0 else "worse"


def _goodness(values: np.ndarray, better: str) -> np.ndarray:
    """Values of which larger ones are better."""
    if better == HIGHER:
        return values
    if better == LOWER:
        return -values
    if better == NEAR_ONE:  # of a ratio: twice is as bad as half
        with np.errstate(divide="ignore"):
            return -np.abs(np.log(values))
    return -np.abs(values)


def best(score: Sampled, names: Sequence[str]) -> str | None:
    """The forecast with the best value of a score that is a single number."""
    good = {n: float(_goodness(score.samples[n][:1], score.better)[0]) for n in names}
    known = {name: x for name, x in good.items() if np.isfinite(x)}
    return max(known, key=known.__getitem__) if known else None


def _rounded(values: np.ndarray) -> Any:
    """Plain numbers with `DIGITS` significant digits."""
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.floor(np.log10(np.abs(values)))
    scale = 10.0 ** (DIGITS - 1 - np.where(np.isfinite(size), size, 0))
    return (np.round(values * scale) / scale).tolist()
