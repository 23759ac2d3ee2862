"""The attention of cuboids, plain and tuned, against the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops import attention
from earthformer_jax.ops.tuned.attention import attend as tuned_attend
from earthformer_jax.ops.tuned.hashed_key import hashed_key, keep_mask, key_words

B, N, Q, S, A, D, G = 2, 3, 5, 4, 2, 6, 3


def numbers(*shape, seed):
    return jax.random.normal(jax.random.key(seed), shape)


def plain(
    query, key, value, bias, global_query, global_key, global_value, *, mask, keep
):
    """Softmax over own and global keys, written as in the paper."""
    scores = jnp.einsum("bnqad,bnsad->bnaqs", query, key) * 0.3
    scores = scores if bias is None else scores + bias
    if mask is not None:
        scores = jnp.where(mask[:, None], scores, -jnp.inf)
    if global_key is not None:
        far_query = query if global_query is None else global_query
        far = jnp.einsum("bnqad,bgad->bnaqg", far_query, global_key) * 0.3
        scores = jnp.concatenate([scores, far], axis=-1)
    highest = scores.max(-1, keepdims=True)
    weights = jnp.exp(scores - jnp.where(jnp.isfinite(highest), highest, 0))
    total = weights.sum(-1, keepdims=True)
    weights = weights / jnp.where(total == 0, 1, total)
    if keep is not None:
        weights = jnp.where(keep, weights / 0.75, 0)
    out = jnp.einsum("bnaqs,bnsad->bnqad", weights[..., :S], value)
    if global_key is not None:
        out += jnp.einsum("bnaqg,bgad->bnqad", weights[..., S:], global_value)
    return out


# Unoptimised, XLA gives infinite numbers for the gradient of the formula.
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("attend", [attention.attend, tuned_attend])
@pytest.mark.parametrize(
    ("with_bias", "vectors", "masked", "dropped"),
    [
        (False, "none", False, False),
        (True, "none", True, True),
        (True, "shared", True, False),
        (False, "shared", False, True),
        (True, "separate", True, True),
    ],
)
def test_values_and_gradients(attend, with_bias, vectors, masked, dropped):
    arguments = dict(
        query=numbers(B, N, Q, A, D, seed=0),
        key=numbers(B, N, S, A, D, seed=1),
        value=numbers(B, N, S, A, D, seed=2),
        bias=numbers(A, Q, S, seed=3) if with_bias else None,
        global_query=None,
        global_key=None,
        global_value=None,
    )
    if vectors != "none":
        arguments["global_key"] = numbers(B, G, A, D, seed=4)
        arguments["global_value"] = numbers(B, G, A, D, seed=5)
    if vectors == "separate":
        arguments["global_query"] = numbers(B, N, Q, A, D, seed=6)
    mask = None
    if masked:
        mask = np.random.default_rng(0).random((N, Q, S)) < 0.6
        mask[1, 2] = False  # a position that may attend to nothing
    keys = S + (0 if vectors == "none" else G)
    rng = hashed_key(jax.random.key(7))
    keep = keep_mask((B, N, A, Q, keys), 0.25, key_words(rng)) if dropped else None

    def ours(arguments):
        drop = dict(dropout_rate=0.25, dropout_key=rng) if dropped else {}
        return attend(**arguments, scale=0.3, mask=mask, **drop)

    def wanted(arguments):
        return plain(**arguments, mask=mask, keep=keep)

    results = [
        jax.jit(jax.value_and_grad(lambda a, f=f: jnp.sum(jnp.sin(f(a)))))(arguments)
        for f in (ours, wanted)
    ]
    for x, y in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-6 * max(float(jnp.abs(y).max()), 1))
    np.testing.assert_allclose(ours(arguments), wanted(arguments), atol=2e-6)


@pytest.mark.parametrize("attend", [attention.attend, tuned_attend])
def test_half_precision_has_wide_scores(attend):
    x = numbers(1, 2, 8, 2, 16, seed=0)
    half = x.astype(jnp.bfloat16)
    have = attend(half, half, half, scale=0.25)
    want = attend(*[half.astype(jnp.float32)] * 3, scale=0.25)
    assert have.dtype == jnp.bfloat16
    np.testing.assert_allclose(have.astype(jnp.float32), want, atol=0.03)


def test_implementations_by_name_and_as_functions():
    x = numbers(1, 2, 4, 1, 3, seed=0)

    def zeros(query, key, value, bias, mask, dropout_rate, dropout_key):
        return jnp.zeros_like(value)

    np.testing.assert_array_equal(
        attention.attend(x, x, x, scale=1.0, implementation=zeros), jnp.zeros_like(x)
    )
    have = attention.attend(x, x, x, scale=1.0, implementation="library")
    np.testing.assert_allclose(have, attention.attend(x, x, x, scale=1.0), atol=1e-6)


@pytest.mark.parametrize(
    "implementation, message",
    [
        ("flash", "implementation='flash' is unknown; use one of xla, library, cudnn"),
        ("auto", r"'auto' no longer exists: measure .* \(benchmarks/attention.py\)"),
    ],
)
def test_unknown_implementations(implementation, message):
    with pytest.raises(ValueError, match=message):
        attention.implementation_of(implementation)
