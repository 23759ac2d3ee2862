"""Scores of restored frames: those of the frames, usage and perplexity of the codes."""

import jax.numpy as jnp
import numpy as np

from earthformer_jax.metrics.codes import RestorationScores
from earthformer_jax.metrics.pixel import PixelError

METRIC = RestorationScores(PixelError(), 8)


def batch_of(codes, **more):
    frames = jnp.zeros((len(codes), 2, 4, 4, 1))
    return {"targets": frames, "codes": jnp.asarray(codes, jnp.int32), **more}


def scores_of(*batches):
    state = METRIC.init()
    for batch in batches:
        state = METRIC.update(state, batch["targets"] + 2.0, batch)
    return METRIC.compute(state)


def test_codes_are_counted_over_all_batches():
    codes = np.arange(4).repeat(4).reshape(2, 2, 2, 2)
    scores = scores_of(batch_of(codes[:1]), batch_of(codes[1:]))
    assert scores["usage"] == 0.5
    np.testing.assert_allclose(scores["perplexity"], 4, rtol=1e-12)
    assert scores["mse"] == 4 and scores["mae"] == 2


def test_padding_has_no_codes():
    codes = np.zeros((2, 2, 2, 2), int)
    codes[1] = 7
    scores = scores_of(batch_of(codes, valid=jnp.asarray([True, False])))
    assert scores["usage"] == 1 / 8 and scores["perplexity"] == 1


def test_scores_of_parts_merge_into_those_of_all():
    codes = np.random.default_rng(0).integers(0, 6, (4, 2, 2, 2))
    first, second = (batch_of(part) for part in np.split(codes, 2))
    states = [METRIC.update(METRIC.init(), b["targets"], b) for b in (first, second)]
    merged = METRIC.compute(METRIC.merge(*states))
    whole = batch_of(codes)
    state = METRIC.update(METRIC.init(), whole["targets"], whole)
    assert merged == METRIC.compute(state)


def test_nothing_scored_has_no_scores():
    scores = METRIC.compute(METRIC.init())
    assert np.isnan([scores[k] for k in ("mse", "usage", "perplexity")]).all()
