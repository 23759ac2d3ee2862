"""Block-bootstrap samples, intervals and paired tests, against closed forms."""

import numpy as np
import pytest
from scipy import signal, stats

from earthformer_jax.metrics import bootstrap

RNG = np.random.default_rng(0)
EXAMPLES = 120
WALK = RNG.normal(size=EXAMPLES).cumsum()


class TestDraw:
    def test_every_sample_has_as_many_examples(self):
        counts = bootstrap.draw(50, 12, 300, seed=0)
        assert counts.shape == (301, 50)
        np.testing.assert_array_equal(counts[0], 1)
        np.testing.assert_array_equal(counts.sum(axis=1), 50)
        assert len(np.unique(counts[1:], axis=0)) > 250

    def test_examples_are_drawn_in_blocks(self):
        """The 12 examples behind a first one have its count, on a circle of 50."""
        counts = bootstrap.draw(48, 12, 200, seed=0)[1:]
        starts = np.maximum(counts - np.roll(counts, 1, axis=1), 0).sum(axis=1)
        assert starts.max() <= 4  # four blocks; fewer where one follows another

    def test_all_examples_are_drawn_equally_often(self):
        counts = bootstrap.draw(50, 12, 4000, seed=1)[1:]
        np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.08)

    def test_the_spread_of_a_mean_is_that_of_the_block_sums(self):
        """Blocks are independent: variances of sums over circular blocks add up."""
        x, block = WALK, 25
        samples = bootstrap.draw(EXAMPLES, block, 20_000, seed=2)[1:] @ x / EXAMPLES

        def variance(length):
            circle = np.concatenate([x, x])
            return np.var([circle[i : i + length].sum() for i in range(EXAMPLES)])

        expected = (4 * variance(25) + variance(20)) / EXAMPLES**2
        np.testing.assert_allclose(np.var(samples), expected, rtol=0.05)
        np.testing.assert_allclose(np.mean(samples), np.mean(x), atol=0.05)

    def test_independent_examples_give_the_standard_error(self):
        x = RNG.normal(size=400)
        samples = bootstrap.draw(400, 1, 10_000, seed=3) @ x / 400
        np.testing.assert_allclose(
            bootstrap.interval(samples, 0.9),
            np.mean(x) + np.std(x) / 20 * stats.norm.ppf([0.05, 0.95]),
            atol=0.005,
        )

    def test_too_few_blocks_have_no_samples(self):
        assert len(bootstrap.draw(143, 36, 100, seed=0)) == 1
        assert len(bootstrap.draw(144, 36, 100, seed=0)) == 101

    @pytest.mark.parametrize("name", ["examples", "block", "samples"])
    def test_numbers_are_positive(self, name):
        numbers = {"examples": 9, "block": 2, "samples": 5} | {name: 0}
        with pytest.raises(ValueError, match=f"{name}=0 must be positive"):
            bootstrap.draw(**numbers, seed=0)


class TestTotals:
    def test_they_are_the_sums_of_the_blocks_drawn(self):
        sums = RNG.normal(size=(9, 2, 3))
        counts = bootstrap.draw(9, 1, 20, seed=0)
        found = bootstrap.totals(counts, sums)
        assert found.shape == (21, 2, 3)
        for s in (0, 7, 20):
            drawn = np.repeat(np.arange(9), counts[s].astype(int))
            np.testing.assert_allclose(found[s], sums[drawn].sum(axis=0), atol=1e-12)

    def test_a_count_is_exact(self):
        sums = np.full((5, 1), 2**40 + 1, np.int64)
        assert bootstrap.totals(np.ones((1, 5)), sums)[0, 0] == 5 * (2**40 + 1)

    def test_a_sum_that_is_not_finite_spoils_its_samples_alone(self):
        sums = np.array([[1.0, np.nan], [2, 3], [4, np.inf]])
        counts = np.array([[1.0, 1, 1], [0, 3, 0], [2, 1, 0]])
        np.testing.assert_array_equal(
            bootstrap.totals(counts, sums), [[7, np.nan], [6, 9], [4, np.nan]]
        )

    def test_as_many_blocks_are_drawn(self):
        with pytest.raises(ValueError, match="sums of 4 blocks, but counts of 5"):
            bootstrap.totals(np.ones((1, 5)), np.ones((4, 2)))


class TestInterval:
    def test_without_samples_it_is_unknown(self):
        found = bootstrap.interval(np.ones((1, 2, 3)), 0.9)
        assert found.shape == (2, 3, 2) and np.isnan(found).all()

    def test_the_score_itself_does_not_count(self):
        samples = np.concatenate([[1e9], np.arange(101.0)])
        np.testing.assert_allclose(bootstrap.interval(samples, 0.9), [5, 95])

    def test_unknown_samples_are_left_out(self):
        samples = np.array([[0.0, 0], [1, np.nan], [1, np.nan], [np.nan, np.nan]])
        np.testing.assert_array_equal(
            bootstrap.interval(samples, 0.5), [[1, 1], [np.nan, np.nan]]
        )

    def test_a_level_is_a_share(self):
        with pytest.raises(ValueError, match="level=90 is not between 0 and 1"):
            bootstrap.interval(np.ones(3), 90)

    def test_an_unknown_score_has_no_interval(self):
        samples = np.array([[np.nan, 1.0], [1, 1], [2, 1]])
        found = bootstrap.interval(samples, 0.5)
        np.testing.assert_array_equal(found, [[np.nan, np.nan], [1, 1]])

    @pytest.mark.parametrize("blocks", [5, 20])
    def test_few_blocks_give_the_interval_of_student(self, blocks):
        """Samples of the mean of normal values are normal themselves."""
        x = RNG.normal(size=blocks)
        spread = np.std(x) / np.sqrt(blocks)  # as of the bootstrap: without n - 1
        samples = x.mean() + spread * np.concatenate(
            [[0], stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)]
        )
        expected = stats.ttest_1samp(x, 0).confidence_interval(0.9)
        found = bootstrap.interval(samples, 0.9, blocks)
        np.testing.assert_allclose(found, list(expected), atol=0.01)

    def test_one_block_has_no_interval(self):
        with pytest.raises(ValueError, match="blocks=1: an interval needs at least 2"):
            bootstrap.interval(np.ones(3), 0.9, blocks=1)


class TestPaired:
    def test_the_p_value_is_that_of_the_paired_t_test(self):
        rng, n = np.random.default_rng(6), 30
        hard = rng.normal(size=n) ** 2 * 5  # the same for both forecasts
        errors = np.stack([hard + rng.normal(size=n), hard + 0.3])
        a, b = (bootstrap.draw(n, 1, 20_000, 7) @ errors.T / n).T
        found = bootstrap.paired(a, b, 0.9, n)
        expected = stats.ttest_rel(errors[0], errors[1])
        np.testing.assert_allclose(found.value, np.mean(errors[0] - errors[1]))
        np.testing.assert_allclose(found.p_value, expected.pvalue, atol=0.02)
        limits = list(expected.confidence_interval(0.9))
        np.testing.assert_allclose(found.interval, limits, atol=0.03)

    def test_the_interval_holds_0_unless_the_p_value_is_small(self):
        rng = np.random.default_rng(8)
        counts = bootstrap.draw(12, 1, 999, seed=1)
        gaps = bootstrap.totals(counts, rng.normal(0.4, 1, size=(12, 200)))
        found = bootstrap.paired(gaps, np.zeros_like(gaps), 0.9, 12)
        beyond = (found.interval[:, 0] > 0) | (found.interval[:, 1] < 0)
        clear = np.abs(found.p_value - 0.1) > 0.01
        assert 40 < np.sum(beyond) < 160
        np.testing.assert_array_equal(beyond[clear], found.p_value[clear] < 0.1)

    def test_without_a_difference_it_is_rarely_significant(self):
        """500 trials of two equally good forecasts."""
        rng, n = np.random.default_rng(9), 40
        gaps = rng.normal(size=(n, 500))
        samples = bootstrap.totals(bootstrap.draw(n, 1, seed=2), gaps)
        p = bootstrap.paired(samples, np.zeros_like(samples), 0.9, n).p_value
        np.testing.assert_allclose(
            np.mean(p < [[0.1], [0.5]], 1), [0.1, 0.5], atol=0.05
        )

    def test_equal_forecasts_do_not_differ(self):
        same = RNG.normal(size=(101, 3))
        found = bootstrap.paired(same, same)
        np.testing.assert_array_equal(found.value, 0)
        np.testing.assert_array_equal(found.interval, 0)
        np.testing.assert_array_equal(found.p_value, 1)

    def test_a_difference_is_never_certain(self):
        found = bootstrap.paired(np.full(100, 5.0), np.zeros(100))
        np.testing.assert_allclose(found.p_value, 2 / 100)

    def test_without_samples_nothing_is_known(self):
        found = bootstrap.paired(np.ones((1, 2)), np.zeros((1, 2)))
        np.testing.assert_array_equal(found.value, 1)
        assert np.isnan(found.interval).all() and np.isnan(found.p_value).all()

    def test_infinite_scores_have_no_difference(self):
        infinite = np.full(9, np.inf)
        found = bootstrap.paired(infinite, infinite, 0.9, 8)
        assert np.isnan(found.value) and np.isnan(found.p_value)
        assert np.isnan(found.interval).all()

    def test_samples_are_of_one_shape(self):
        with pytest.raises(ValueError, match=r"shapes \[3\] and \[4\] are not paired"):
            bootstrap.paired(np.ones(3), np.ones(4))


class TestCoverage:
    """Of 500 intervals at 90 %, 85 to 95 % hold the truth."""

    TRIALS = 500

    def covered(self, scores, truth, blocks):
        low, high = np.moveaxis(bootstrap.interval(scores, 0.9, blocks), -1, 0)
        share = np.mean((low <= truth) & (truth <= high))
        assert 0.85 <= share <= 0.95, share

    def series(self, length, memory, seed):
        """`[length, trials]` of an AR(1) process with variance 1."""
        noise = np.random.default_rng(seed).normal(size=(length + 200, self.TRIALS))
        noise *= np.sqrt(1 - memory**2)
        return signal.lfilter([1], [1, -memory], noise, axis=0)[200:]

    def csi(self, hits, misses, false_alarms):
        return hits / np.maximum(hits + misses + false_alarms, 1)

    def events(self, x, y):
        """Hits, misses, false alarms `[3, n, trials]` of values above 0.5."""
        forecast, truth = x > 0.5, 0.8 * x + 0.6 * y > 0.5
        return np.stack([forecast & truth, ~forecast & truth, forecast & ~truth])

    def true_csi(self):
        x, y = np.random.default_rng(0).normal(size=(2, 2_000_000))
        return self.csi(*self.events(x, y).mean(axis=1) * 1e9)

    @pytest.mark.parametrize("blocks", [8, 50])
    def test_mean_of_independent_examples(self, blocks):
        x = np.random.default_rng(1).exponential(size=(blocks, self.TRIALS))
        if blocks == 8:  # so few need values that are not too far from normal
            x = np.random.default_rng(1).normal(1, size=(blocks, self.TRIALS))
        counts = bootstrap.draw(blocks, 1, seed=3)
        self.covered(bootstrap.totals(counts, x) / blocks, 1, blocks)

    def test_csi_of_independent_examples(self):
        shape = (60, 10, self.TRIALS)  # an example has ten pixels
        x, y = np.random.default_rng(2).normal(size=(2, *shape))
        sums = self.events(x, y).sum(axis=2)
        counts = bootstrap.draw(60, 1, seed=4)
        scores = self.csi(*(bootstrap.totals(counts, s) for s in sums))
        self.covered(scores, self.true_csi(), 60)

    @pytest.mark.parametrize("score", ["mean", "csi"])
    def test_successive_examples_need_blocks(self, score):
        length, block = 1200, 30
        x, y = self.series(length, 0.8, 5), self.series(length, 0.8, 6)
        sums = x[None] if score == "mean" else self.events(x, y)
        truth = 0 if score == "mean" else self.true_csi()
        of = (lambda s: s / length) if score == "mean" else self.csi
        blocks = length // block
        joined = sums.reshape(len(sums), blocks, block, self.TRIALS).sum(axis=2)
        counts = bootstrap.draw(blocks, 1, seed=7)
        scores = of(*(bootstrap.totals(counts, s) for s in joined))
        self.covered(scores, truth, blocks)
        circular = bootstrap.draw(length, block, seed=8)
        scores = of(*(bootstrap.totals(circular, s) for s in sums))
        self.covered(scores, truth, blocks)
        single = bootstrap.draw(length, 1, 200, seed=9)
        scores = of(*(bootstrap.totals(single, s) for s in sums))
        with pytest.raises(AssertionError):  # they are not independent
            self.covered(scores, truth, length)
