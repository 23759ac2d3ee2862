"""How well points fall into clusters, and how well clusters agree with known classes.

Six scores of a clustering of days, as its authors report them. The usual three come
from scikit-learn; the others, for N points in K clusters with means m_k, are

    rmse              sqrt( sum_i |x_i - m_k(i)|^2 / N )
    average_variance  sum_k N_k var_k / N, var_k over all values of the cluster's points
    inter_distance    mean_k min_l D_kl, where D_kl is the smallest distance between a
                      point of k and one of l, and D_kk the largest within k

Reference:
    Faruque et al. 2023, Deep Spatiotemporal Clustering: A Temporal Clustering Approach
    for Multi-dimensional Climate Data (ECML PKDD).
"""

from collections.abc import Mapping

import numpy as np
from sklearn import metrics
from sklearn.cluster import KMeans

# Which direction is better.
HIGHER, LOWER = "higher", "lower"
DIRECTIONS: Mapping[str, str] = {
    "silhouette": HIGHER,
    "davies_bouldin": LOWER,
    "calinski_harabasz": HIGHER,
    "rmse": LOWER,
    "average_variance": LOWER,
    "inter_distance": HIGHER,
}


def k_means(points: np.ndarray, clusters: int, seed: int, fit=None) -> np.ndarray:
    """Sorts points into clusters, numbered from the largest.

    Args:
        points: `[n, d]`.
        clusters: how many.
        seed: of the initial centres; the best of ten is taken.
        fit: bool `[n]`, the points that centres are found from; None: all.

    Returns:
        int `[n]`.

    Raises:
        ValueError: if there are fewer points than clusters.
    """
    points = np.ascontiguousarray(points, np.float64)
    chosen = points if fit is None else points[fit]
    if len(chosen) < clusters:
        raise ValueError(
            f"clusters={clusters}: {len(chosen)} points cannot be sorted into so many; "
            "use fewer"
        )
    found = KMeans(
        clusters,
        n_init=10,  # pyright: ignore[reportArgumentType] (scikit-learn has no types)
        random_state=seed,
    ).fit(chosen)
    labels = found.predict(points)
    order = np.argsort(-np.bincount(labels, minlength=clusters), kind="stable")
    return np.argsort(order)[labels]


def cluster_scores(points: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The six scores of `DIRECTIONS`.

    Args:
        points: `[n, d]`, the points that are judged: embeddings, or the fields
            themselves, scaled to 0..1 (`unit_range`).
        labels: int `[n]`.

    Returns:
        by name; NaN where a score is undefined, with less than two clusters or one
        for every point.
    """
    points = np.ascontiguousarray(points, np.float64)
    _, labels = np.unique(labels, return_inverse=True)
    count = labels.max() + 1
    members = [points[labels == k] for k in range(count)]
    sizes = np.array([len(m) for m in members])
    squares = sum(np.square(m - m.mean(axis=0)).sum() for m in members)
    variances = np.array([m.var() for m in members])
    scores = {
        "rmse": np.sqrt(squares / len(points)),
        "average_variance": (sizes * variances).sum() / len(points),
    }
    usual = dict.fromkeys(DIRECTIONS, np.nan)
    if 2 <= count < len(points):
        usual |= {
            "silhouette": metrics.silhouette_score(points, labels, metric="cosine"),
            "davies_bouldin": metrics.davies_bouldin_score(points, labels),
            "calinski_harabasz": metrics.calinski_harabasz_score(points, labels),
            "inter_distance": _inter_distance(members),
        }
    return {name: float((usual | scores)[name]) for name in DIRECTIONS}


def unit_range(fields: np.ndarray, cells: int = 1) -> np.ndarray:
    """Fields `[n, ..., c]` scaled to 0..1 for every variable, as points `[n, d]`.

    Args:
        fields: the last axis are variables; NaN-free.
        cells: only every `cells`-th position of the plane is kept.
    """
    axes = tuple(range(fields.ndim - 1))
    low, high = fields.min(axis=axes), fields.max(axis=axes)
    scaled = (fields - low) / np.where(high > low, high - low, 1)
    return scaled.reshape(len(fields), -1, fields.shape[-1])[:, ::cells].reshape(
        len(fields), -1
    )


def agreement(labels: np.ndarray, truth: np.ndarray) -> float:
    """Adjusted Rand index: 1 for equal partitions, 0 on average for random ones.

    Reference:
        Hubert and Arabie 1985, Comparing partitions.
    """
    return float(metrics.adjusted_rand_score(truth, labels))


def _inter_distance(members) -> float:
    between = np.empty((len(members), len(members)))
    for k, first in enumerate(members):
        for m in range(k, len(members)):
            distances = metrics.pairwise_distances(first, members[m])
            value = distances.max() if k == m else distances.min()
            between[k, m] = between[m, k] = value
    return float(between.min(axis=0).mean())
