"""JAX's own attention, folded around cuboids, against ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops.attention import softmax_attention
from earthformer_jax.ops.library_attention import library_attention

B, N, A, Q, S = 2, 3, 2, 10, 13


def arrays(width=6, value_width=9, heads=None, dtype=jnp.float32):
    random = np.random.default_rng(1)

    def normal(*shape, scale=1.0):
        return jnp.asarray(scale * random.normal(size=shape), dtype)

    found = dict(
        query=normal(B, N, A, Q, width, scale=width**-0.5),
        key=normal(B, N, A, S, width),
        value=normal(B, N, A, S, value_width),
    )
    if heads:
        found["bias"] = normal(heads, Q, S).astype(jnp.float32)
    return found


def a_mask():
    mask = np.random.default_rng(0).random((N, Q, S)) < 0.6
    mask[0, 1] = mask[-1, -1] = False
    return mask


def value_and_gradients(function, found, mask):
    def loss(found):
        out = function(**found, mask=mask)
        return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

    (_, out), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(found)
    return dict(gradients, out=out)


@pytest.mark.parametrize(
    ("heads", "masked", "widths"),
    [
        (None, False, (8, 8)),
        (1, True, (6, 9)),
        (2, False, (9, 6)),
        (2, True, (8, 8)),
    ],
)
def test_values_and_gradients(heads, masked, widths):
    found, mask = arrays(*widths, heads), a_mask() if masked else None
    have = value_and_gradients(library_attention, found, mask)
    want = value_and_gradients(softmax_attention, found, mask)
    assert have.keys() == want.keys()
    for name, x in want.items():
        atol = 1e-5 * float(jnp.abs(x).max())
        np.testing.assert_allclose(have[name], x, atol=atol, rtol=0, err_msg=name)


def test_half_precision():
    found = arrays(heads=2, dtype=jnp.bfloat16)
    have = library_attention(**found, mask=a_mask())
    want = softmax_attention(**found, mask=a_mask())
    assert have.dtype == want.dtype == jnp.bfloat16
    np.testing.assert_allclose(*(np.float32(x) for x in (have, want)), atol=0.03)


def test_rows_without_keys_are_zero():
    out = library_attention(**arrays(), mask=a_mask())
    rows = np.moveaxis(np.asarray(out), 2, -1)[:, ~a_mask().any(axis=-1)]
    np.testing.assert_array_equal(rows, np.zeros_like(rows))


def test_errors():
    found, key = arrays(), jax.random.key(0)
    with pytest.raises(
        ValueError, match="has no dropout; got a key and dropout_rate=0.1"
    ):
        library_attention(**found, dropout_rate=0.1, dropout_key=key)
    with pytest.raises(ValueError, match="one of xla, cudnn; got 'flash'"):
        library_attention(**found, implementation="flash")
    with pytest.raises(ValueError, match="bfloat16 or float16; got float32"):
        library_attention(**found, implementation="cudnn")
    # Neither a rate without a key nor a key without a rate drops anything.
    want = softmax_attention(**found)
    for options in (dict(dropout_rate=0.1), dict(dropout_key=key)):
        have = library_attention(**found, **options)
        np.testing.assert_allclose(have, want, atol=1e-5)
