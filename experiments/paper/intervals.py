"""Intervals of the difference of two rows, from the sums that evaluations keep."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from earthformer_jax.metrics import bootstrap
from earthformer_jax.reports.scoring import MODEL
from earthformer_jax.reports.verification import archive, skill
from earthformer_jax.reports.verification.sums import BlockSums
from paper.table import Claim, Column, Table, value_of

# By row, the workdir and the result of each seed.
Trainings = Mapping[str, Sequence[tuple[pathlib.Path, Mapping[str, Any]]]]
CLOSE = 1e-4  # share by which a score of the sums may differ from that of scores.json


def of_claims(
    table: Table, data: str, trainings: Trainings
) -> dict[Claim, tuple[float, float]]:
    """The interval of our gain for each claim of which both rows are trained.

    It is of the mean over seeds, for other test examples (blocks are drawn, the same
    for both rows), and says nothing about other seeds. A claim whose score has no sums
    or too few blocks has none.
    """
    column = table.columns[data][0]
    sampled = {key: samples_of(column, of) for key, of in trainings.items()}
    found = {}
    for claim in table.claims:
        a, b = (sampled.get(key) for key in (claim.worse, claim.better))
        if a is None or b is None or a[1:] != b[1:]:
            continue
        sign = 1.0 if column.lower_is_better else -1.0
        gap = bootstrap.paired(sign * a[0], sign * b[0], blocks=a[1])
        low, high = gap.interval
        found[claim] = float(low), float(high)
    return found


def samples_of(
    column: Column, trainings: Sequence[tuple[pathlib.Path, Mapping[str, Any]]]
) -> tuple[np.ndarray, int, str] | None:
    """A score on samples of the test examples, as the mean over trainings.

    Returns:
        `[1 + s]` in the units of the table, number of blocks, and checksum of the
        examples; None if a training left no sums of the score, or too few blocks.
    """
    seeds, about = [], set()
    for folder, result in trainings:
        if not (folder / archive.NAME).exists():
            return None
        sums = archive.read(folder / archive.NAME)
        samples = _score_as_in(sums, column.key, value_of(result, column.key))
        if samples is None or len(samples) < 2:
            return None
        seeds.append(column.scale_in(result["data"]["mse_units"]) * samples)
        about.add((sums.blocks, sums.examples.checksum))
    if len(about) != 1:
        return None
    return np.mean(seeds, axis=0), *about.pop()


def _score_as_in(sums: BlockSums, key: str, value: float | None) -> np.ndarray | None:
    """Samples of the score that has the value of scores.json; None: there is none."""
    for name in (key, f"frame_{key}"):
        if value is None or name not in sums.verification.scores:
            continue
        for number in next(skill.sampled(sums, names=[name])).numbers():
            samples = number.samples[MODEL]
            if abs(samples[0] - value) <= CLOSE * abs(value):
                return samples
            break  # the others are of other thresholds or scales
    return None
