"""Scores of any metric on bootstrap samples, for intervals.

A metric adds up over disjoint examples, so a sample of test examples is scored by
adding the states of those that were drawn; no forecast is made again. Tasks with a
verification need no metric for this: see `reports.verification`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.data.pipeline import evaluation_batches
from earthformer_jax.data.source import Source
from earthformer_jax.data.task import Forecast
from earthformer_jax.metrics import bootstrap
from earthformer_jax.metrics.contract import Metric, Scores


def block_sums(
    metric: Metric, examples: Source, forecasts: Mapping[str, Forecast], block: int
) -> dict[str, Any]:
    """The sums of a metric for each block of test examples.

    Args:
        metric: of the forecasts.
        examples: the test split.
        forecasts: by name; each maps a batch to `[b, k, h, w, c]` in model units.
        block: consecutive examples that a sample keeps together: 1 if examples are
            independent, more if they are overlapping windows of a series.

    Returns:
        by name, the states of the metric stacked along a first axis `[blocks]`.
    """
    update = jax.jit(lambda fields, batch: metric.update(metric.init(), fields, batch))
    sums: dict[str, list] = {name: [] for name in forecasts}
    for batch in evaluation_batches(examples, block):
        for name, forecast in forecasts.items():
            sums[name].append(jax.device_get(update(forecast(batch), batch)))
    return {name: jax.tree.map(lambda *x: np.stack(x), *s) for name, s in sums.items()}


def sampled_scores(metric: Metric, sums: Any, samples: int, seed: int) -> list[Scores]:
    """Scores of all blocks, followed by those of samples of as many blocks.

    Forecasts of the same examples are sampled alike if the seed is the same, so that
    their scores can be subtracted sample by sample.

    Args:
        metric: of the sums.
        sums: of one forecast, as from `block_sums`.
        samples: how many are drawn, with replacement.
        seed: of the draw.
    """
    blocks = len(jax.tree.leaves(sums)[0])
    counts = bootstrap.draw(blocks, 1, samples, seed).astype(int)

    @jax.jit
    def total(chosen):
        def add(so_far, one):
            return metric.merge(so_far, one), None

        picked = jax.tree.map(lambda x: jnp.asarray(x)[chosen], sums)
        return jax.lax.scan(add, metric.init(), picked)[0]

    each = np.arange(blocks)
    return [metric.compute(total(np.repeat(each, row))) for row in counts]
