"""Scores of clusterings, by hand and by their laws."""

import math

import numpy as np
import pytest

from earthformer_jax.metrics import clusters

# Two pairs far apart.
POINTS = np.array([[0.0, 1.0], [0.0, 3.0], [10.0, 1.0], [10.0, 3.0]])
LABELS = np.array([0, 0, 1, 1])


def blobs(count=3, each=30, seed=0):
    rng = np.random.default_rng(seed)
    centres = 10 * np.eye(count, 4)
    truth = np.repeat(np.arange(count), each)
    return centres[truth] + 0.3 * rng.normal(size=(len(truth), 4)), truth


class TestScores:
    def test_by_hand(self):
        scores = clusters.cluster_scores(POINTS, LABELS)
        # Every point is 1 from the mean of its cluster.
        assert scores["rmse"] == pytest.approx(1.0)
        # Values 0 1 0 3, and 10 1 10 3.
        variances = np.var([0, 1, 0, 3]), np.var([10, 1, 10, 3])
        assert scores["average_variance"] == pytest.approx(np.mean(variances))
        # 10 between the clusters, 2 within: the smaller one counts.
        assert scores["inter_distance"] == pytest.approx(2.0)
        # (1 + 1) / 10, for both.
        assert scores["davies_bouldin"] == pytest.approx(0.2)
        # Between: 4 points 5 away from the mean; within: 4 points 1 away.
        assert scores["calinski_harabasz"] == pytest.approx((100 / 1) / (4 / 2))

    def test_silhouette_is_of_angles(self):
        longer = POINTS * np.array([[1.0], [7.0], [2.0], [0.1]])
        want = clusters.cluster_scores(POINTS, LABELS)["silhouette"]
        got = clusters.cluster_scores(longer, LABELS)["silhouette"]
        assert got == pytest.approx(want)

    def test_names_of_clusters_do_not_matter(self):
        points, truth = blobs()
        renamed = np.array([7, -1, 3])[truth]
        want = clusters.cluster_scores(points, truth)
        assert clusters.cluster_scores(points, renamed) == pytest.approx(want)

    def test_the_right_clusters_win(self):
        points, truth = blobs()
        right = clusters.cluster_scores(points, truth)
        wrong = clusters.cluster_scores(points, np.roll(truth, 15))
        for name, better in clusters.DIRECTIONS.items():
            if better == clusters.HIGHER:
                assert right[name] >= wrong[name], name
            else:
                assert right[name] <= wrong[name], name

    @pytest.mark.parametrize("labels", [np.zeros(4, int), np.arange(4)])
    def test_undefined(self, labels):
        scores = clusters.cluster_scores(POINTS, labels)
        assert math.isnan(scores["silhouette"])
        assert math.isfinite(scores["rmse"])


class TestKMeans:
    def test_finds_blobs_whatever_the_seed(self):
        points, truth = blobs()
        for seed in range(3):
            labels = clusters.k_means(points, 3, seed)
            assert clusters.agreement(labels, truth) == 1.0

    def test_the_largest_is_first(self):
        points, truth = blobs()
        kept = np.concatenate([np.arange(40), np.arange(60, 90)])
        labels = clusters.k_means(points[kept], 3, 0)
        np.testing.assert_array_equal(np.bincount(labels), [30, 30, 10])
        assert (labels[truth[kept] == 1] == 2).all()

    def test_centres_come_from_some_points(self):
        points, truth = blobs()
        labels = clusters.k_means(points, 2, 0, fit=truth < 2)
        assert len(np.unique(labels[truth < 2])) == 2
        assert len(labels) == len(points)

    def test_too_few_points(self):
        with pytest.raises(ValueError, match="clusters=3: 2 points"):
            clusters.k_means(POINTS[:2], 3, 0)


def test_agreement_of_random_labels_is_near_zero():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, (2, 2000))
    assert abs(clusters.agreement(a, b)) < 0.01


def test_unit_range_is_by_variable():
    fields = np.stack([np.linspace(-3, 5, 24), np.linspace(900, 1100, 24)], axis=-1)
    points = clusters.unit_range(fields.reshape(4, 2, 3, 2))
    assert points.shape == (4, 12) and points.min() == 0 and points.max() == 1
    np.testing.assert_allclose(points[:, ::2], points[:, 1::2], atol=1e-12)
    assert clusters.unit_range(fields.reshape(4, 2, 3, 2), cells=2).shape == (4, 6)
    assert (clusters.unit_range(np.ones((3, 2, 2, 1))) == 0).all()
