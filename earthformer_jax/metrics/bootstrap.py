"""How sure a score is: intervals and paired tests by the block bootstrap, in NumPy.

Scores are made of sums that add up over examples. Sums are kept for each of some blocks
of examples, `[n, ...]`; a sample draws as many blocks with replacement, adds their
sums, and is scored like all examples together. No forecast is made again.

    counts = draw(n, 1, samples=1000, seed=0)          # [1 + s, n]
    scores = csi({k: totals(counts, x) for k, x in sums.items()})    # [1 + s, ...]
    low_high = interval(scores, 0.9, blocks=n)

The first of `1 + s` values is always the score itself. Forecasts of the same examples
are scored on the same samples: what makes an example easy or hard for all of them
cancels in the difference of their scores.

Blocks have to be independent of each other: one event, or a stretch of a series that is
long in comparison with its memory. Or blocks are drawn as `block` successive examples
of a series, wherever they begin (`draw`).

Reference:
    Efron and Tibshirani 1993, "An introduction to the bootstrap". Politis and Romano
    1992, "A circular block-resampling procedure for stationary data" (the last example
    is followed by the first, so that all are drawn equally often). Hesterberg 2015,
    "What teachers should know about the bootstrap", section 6: intervals that are wide
    enough for few blocks.
"""

import dataclasses
import warnings

import numpy as np
from scipy import special

LEVEL = 0.9  # share of the samples inside an interval
SAMPLES = 1000
SEED = 0
LEAST_BLOCKS = 4  # with fewer, the samples are too much alike for an interval


@dataclasses.dataclass(frozen=True, eq=False)
class Difference:
    """A score of one forecast minus that of another, on the same examples.

    Attributes:
        value: `[...]`, the difference over all examples.
        interval: `[..., 2]`, NaN where there are no samples.
        p_value: `[...]`, two-sided, of the hypothesis that both are equally good, from
            the share of samples beyond 0: smaller than 1 - level where the interval
            does not hold 0. NaN where the interval is.
    """

    value: np.ndarray
    interval: np.ndarray
    p_value: np.ndarray


def draw(
    examples: int, block: int, samples: int = SAMPLES, seed: int = SEED
) -> np.ndarray:
    """How often each example is in each sample of a circular block bootstrap.

    A sample has as many examples as there are; its last block is shortened to that.

    Args:
        examples: number of examples, in the order of their start.
        block: successive examples that are drawn together; 1 if all are independent.
        samples: number of samples.
        seed: of the draw.

    Returns:
        float64 `[1 + samples, examples]`; the first row has every example once. There
        are no samples if there are fewer than `LEAST_BLOCKS` blocks.

    Raises:
        ValueError: if a number is not positive.
    """
    for name, value in (("examples", examples), ("block", block), ("samples", samples)):
        if value < 1:
            raise ValueError(f"{name}={value} must be positive")
    everything = np.ones((1, examples))
    if examples < LEAST_BLOCKS * block:
        return everything
    blocks = -(-examples // block)
    first = np.random.default_rng(seed).integers(examples, size=(samples, blocks))
    length = np.full(blocks, block)
    length[-1] = examples - block * (blocks - 1)
    # +1 where a block begins and -1 behind its end; the sum up to an example is how
    # many blocks hold it. The second half of the axis is the first once more.
    edges = np.zeros((samples, 2 * examples + 1))
    rows = np.arange(samples)[:, None]
    np.add.at(edges, (rows, first), 1)
    np.add.at(edges, (rows, first + length), -1)
    held = np.cumsum(edges, axis=1)
    return np.concatenate([everything, held[:, :examples] + held[:, examples:-1]])


def totals(counts: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The sums of each sample.

    Args:
        counts: `[1 + s, n]`, how often a sample has each block, as from `draw`.
        sums: `[n, ...]` of each block.

    Returns:
        float64 `[1 + s, ...]`.

    Raises:
        ValueError: if the numbers of blocks differ.
    """
    sums = np.asarray(sums, np.float64)
    if len(sums) != counts.shape[1]:
        raise ValueError(
            f"sums of {len(sums)} blocks, but counts of {counts.shape[1]}; draw as "
            "many blocks as there are"
        )
    # A product of 0 and a sum that is not finite would be NaN in every sample.
    bad = ~np.isfinite(sums)
    total = np.tensordot(counts, np.where(bad, 0, sums), axes=(1, 0))
    if bad.any():
        lost = np.tensordot(counts, bad.astype(np.float64), axes=(1, 0)) > 0
        total = np.where(lost, np.nan, total)
    return total


def interval(
    samples: np.ndarray, level: float = LEVEL, blocks: int | None = None
) -> np.ndarray:
    """The central interval of the samples of a score, or of a difference of scores.

    Args:
        samples: `[1 + s, ...]`; the first is the score itself and does not count.
        level: share of the samples inside, between 0 and 1.
        blocks: number of independent blocks in a sample. The spread of samples of n
            blocks is too small by sqrt((n - 1) / n), and it is itself uncertain as in
            Student's t; the quantiles are taken further outside by as much. None: at
            the level itself.

    Returns:
        `[..., 2]`; NaN where there are no samples, or the score itself is NaN. Samples
        in which it is NaN are left out.

    Raises:
        ValueError: if `level` is not between 0 and 1, or `blocks` is less than 2.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level} is not between 0 and 1")
    samples = np.asarray(samples, np.float64)
    drawn = samples[1:]
    if not len(drawn):
        return np.full((*drawn.shape[1:], 2), np.nan)
    outside = (1 - level) / 2
    if blocks is not None:
        outside = float(_expanded(outside, blocks))
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        quantile = np.nanquantile if np.isnan(drawn).any() else np.quantile
        limits = np.moveaxis(quantile(drawn, (outside, 1 - outside), axis=0), 0, -1)
    return np.where(np.isnan(samples[0])[..., None], np.nan, limits)


def paired(
    a: np.ndarray, b: np.ndarray, level: float = LEVEL, blocks: int | None = None
) -> Difference:
    """The difference of the scores of two forecasts on the same samples.

    Args:
        a, b: `[1 + s, ...]`, scores of all examples and of samples, drawn alike.
        level: share of the samples inside the interval.
        blocks: as of `interval`.

    Returns:
        `a - b` with its interval and p-value.

    Raises:
        ValueError: if the shapes differ, or `level` is not between 0 and 1.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(
            f"samples of shapes {list(a.shape)} and {list(b.shape)} are not paired; "
            "score both forecasts on the same samples"
        )
    with np.errstate(invalid="ignore"):  # two infinite scores have no difference
        gap = a - b
    return Difference(gap[0], interval(gap, level, blocks), _p_value(gap, blocks))


def _p_value(gap: np.ndarray, blocks: int | None) -> np.ndarray:
    """Two-sided p-value `[...]` of samples `[1 + s, ...]` of a difference."""
    drawn = gap[1:]
    known = np.sum(np.isfinite(drawn), axis=0)
    # A sample counts as one more on each side: a finite number of samples cannot show
    # that a p-value is 0.
    low = (np.sum(drawn <= 0, axis=0) + 1) / (known + 1)
    high = (np.sum(drawn >= 0, axis=0) + 1) / (known + 1)
    share = np.minimum(np.minimum(low, high), 0.5)
    if blocks is not None:
        share = _contracted(share, blocks)
    undefined = (known == 0) | np.isnan(gap[0])
    return np.where(undefined, np.nan, np.minimum(2 * share, 1))


def _expanded(outside, blocks: int):
    """The share of samples outside at which an interval of few blocks is right."""
    n = _at_least_two(blocks)
    quantile = special.stdtrit(n - 1, outside) * np.sqrt(n / (n - 1))
    return special.ndtr(quantile)


def _contracted(share, blocks: int):
    """The inverse of `_expanded`."""
    n = _at_least_two(blocks)
    return special.stdtr(n - 1, special.ndtri(share) * np.sqrt((n - 1) / n))


def _at_least_two(blocks: int) -> int:
    if blocks < 2:
        raise ValueError(f"blocks={blocks}: an interval needs at least 2")
    return blocks
