"""Attention along rows and columns against a loop over lines and heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.layers.axial_attention import AxialAttention


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_axial_attention_by_loops():
    """Rows and columns one by one, heads one by one, from the same input."""
    x, heads, width = draw(1, 3, 4, 6), 2, 4
    layer = AxialAttention(heads=heads, features=heads * width)
    v = layer.init(jax.random.key(0), x)
    np.testing.assert_array_equal(layer.apply(v, x), x)  # gains start at zero
    v = jax.tree.map(lambda a: a + 0.5 * draw(*a.shape), v)
    have = np.asarray(layer.apply(v, x))

    def attend(w, line):
        centred = line - line.mean(-1, keepdims=True)
        y = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5)
        query, key, value = np.split((y * w["scale"] + w["bias"]) @ w["qkv"], 3, -1)
        out = []
        for a in range(heads):
            part = slice(a * width, (a + 1) * width)
            scores = query[:, part] @ key[:, part].T / width**0.5
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            out.append(weights @ value[:, part])
        return w["gain"] * (np.concatenate(out, -1) @ w["out"])

    w = jax.tree.map(lambda a: np.asarray(a, np.float64), v["params"])
    plane = np.asarray(x[0], np.float64)
    want = plane.copy()
    for i in range(3):
        want[i] += attend(w["rows"], plane[i])
    for j in range(4):
        want[:, j] += attend(w["columns"], plane[:, j])
    np.testing.assert_allclose(have[0], want, atol=1e-5)


def test_heads_divide_the_features():
    layer = AxialAttention(heads=3, features=8)
    with pytest.raises(ValueError, match="3 heads for 8 features"):
        layer.init(jax.random.key(0), draw(1, 3, 4, 6))
