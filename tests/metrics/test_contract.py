"""What every metric guarantees: states of a fixed shape that add up."""

import jax
import numpy as np
import pytest

from earthformer_jax.metrics import contract
from earthformer_jax.metrics.channels import ChannelScores
from earthformer_jax.metrics.enso import NinoSkill
from earthformer_jax.metrics.frames import FrameScores
from earthformer_jax.metrics.pixel import PixelError
from earthformer_jax.metrics.precipitation import RainScores

METRICS = [
    PixelError(),
    ChannelScores(("value",)),
    FrameScores(),
    RainScores(),
    NinoSkill(np.full((11, 12), 1 / 132), out_len=4),
]


def batch(seed, size):
    """Targets, a forecast of them, and an example that is padding."""
    rng = np.random.default_rng(seed)
    targets, forecast = rng.uniform(size=(2, size, 4, 11, 12, 1)).astype(np.float32)
    valid = np.arange(size) < size - 1
    return forecast, {"targets": targets, "valid": valid}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
class TestEveryMetric:
    def test_states_add_up(self, metric):
        parts = [batch(seed, size) for seed, size in ((0, 3), (1, 4))]
        one_by_one = metric.init()
        for part in parts:
            one_by_one = metric.update(one_by_one, *part)
        apart = [metric.update(metric.init(), *part) for part in parts]
        want = metric.compute(one_by_one)
        for a, b in (apart, apart[::-1], (one_by_one, metric.init())):
            got = metric.compute(metric.merge(a, b))
            assert got.keys() == want.keys()
            for name in want:
                np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-6)

    def test_the_state_keeps_its_shape(self, metric):
        def described(state):
            return jax.tree.map(lambda x: (x.shape, str(x.dtype)), state)

        before = metric.init()
        after = jax.eval_shape(metric.update, before, *batch(0, 2))
        assert described(after) == described(before)
        kinds = {x.dtype.name for x in jax.tree.leaves(before)}
        assert kinds <= {"float32", "int32"}

    def test_scores_that_are_single_numbers(self, metric):
        scores = metric.compute(metric.update(metric.init(), *batch(0, 3)))
        names = contract.scalar_scores(metric)
        assert "mse" in names and all(type(scores[name]) is float for name in names)
        others = set(scores) - set(names) - {"ssim"}  # known once there are frames
        assert all(isinstance(scores[name], list) for name in others)
