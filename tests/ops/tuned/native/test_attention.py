"""Attention in C++ equals that of JAX: values, gradients, and what dropout drops."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops import attention as plain
from earthformer_jax.ops import forward_mode
from earthformer_jax.ops.dropout import Reordered
from earthformer_jax.ops.tuned import attention as tuned
from earthformer_jax.ops.tuned.hashed_key import hashed_key, key_words, of_part
from earthformer_jax.ops.tuned.native import attention as native
from earthformer_jax.ops.tuned.native import calls, library
from earthformer_jax.profiling.multiply_adds import multiply_adds
from tests.ops.tuned.native import comparing
from tests.ops.tuned.native.comparing import NEEDS_COMPILER

pytestmark = NEEDS_COMPILER

B, N, A = 2, 6, 3  # examples, cuboids, heads
KEY = hashed_key(jax.random.key(3))
# Queries, keys and width: of whole vectors and not, as many keys as queries and not.
SIZES = {
    "one vector": (16, 16, 16),
    "time": (10, 10, 16),
    "narrow": (3, 3, 4),
    "two and a half": (5, 21, 40),
    "more keys": (4, 33, 16),
    "one position": (1, 1, 8),
}
OPTIONS = {
    "nothing": {},
    "bias": dict(bias=(A,)),
    "one bias of all heads": dict(bias=(1,)),
    "global vectors": dict(far=5, bias=(A,)),
    "global queries": dict(far=9, queries=True),
    "mask": dict(mask=True, bias=(A,)),
    "mask and global vectors": dict(mask=True, far=2),
    "dropout": dict(dropout_rate=0.2, bias=(A,), far=3),
    "dropout of reordered cuboids": dict(
        dropout_rate=0.5, reordered=Reordered(1, (2, 3, 1), (1, 0, 2))
    ),
    "dropout of a part": dict(dropout_rate=0.3, mask=True, part=4),
}


def arguments(
    q, s, d, *, bias=None, far=0, queries=False, mask=False, part=None, **more
):
    """Arrays that are differentiated, and the other arguments."""
    random = np.random.default_rng(0)

    def array(*shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    found = dict(query=(B, N, q, A, d), key=(B, N, s, A, d), value=(B, N, s, A, d))
    if bias:
        found["bias"] = (*bias, q, s)
    if far:
        found |= dict(global_key=(B, far, A, d), global_value=(B, far, A, d))
    if queries:
        found["global_query"] = (B, N, q, A, d)
    others: dict[str, Any] = dict(scale=0.3, **more)
    if mask:
        others["mask"] = random.random((N, q, s)) > 0.4
        others["mask"][0, 0] = False  # a query that sees nothing near
    if "dropout_rate" in more:
        own = part is None
        others["dropout_key"] = KEY if own else of_part(key_words(KEY), jnp.int32(part))
    return {name: array(*shape) for name, shape in found.items()}, others


def value_and_gradients(attend, arrays, others):
    return comparing.value_and_gradients(lambda x: attend(**x, **others), arrays)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("size", SIZES)
def test_as_in_jax(size, options):
    arrays, others = arguments(*SIZES[size], **OPTIONS[options])
    assert native.suits(**arrays, **others)
    found = value_and_gradients(native.attend, arrays, others)
    with library.without():
        wanted = value_and_gradients(tuned.attend, arrays, others)
    chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_used_by_the_tuned_function():
    arrays, others = arguments(4, 4, 8)

    def text():
        return (
            jax.jit(functools.partial(tuned.attend, **others)).lower(**arrays).as_text()
        )

    assert library.target("attention") in text()
    for context in (library.without, forward_mode):
        with context():
            assert "custom_call" not in text()


@pytest.mark.parametrize(
    "change",
    [
        dict(dtype=jnp.bfloat16),
        dict(mask=jnp.ones((N, 4, 4), bool)),
        dict(reordered=Reordered(2, (3,), (0,))),
        dict(width=5),
        dict(dropout_rate=1.0),
    ],
    ids=str,
)
def test_what_does_not_suit(change):
    arrays, others = arguments(4, 4, 8)
    dtype, width = change.pop("dtype", jnp.float32), change.pop("width", 8)
    arrays = {name: x.astype(dtype) for name, x in arrays.items()}
    arrays["value"] = arrays["value"][..., :width]
    assert not native.suits(**arrays, **others, **change)


def test_large_cuboids_are_left_to_jax():
    shape = jax.ShapeDtypeStruct((1, 1, 1025, 1, 8), jnp.float32)
    jax.eval_shape(lambda x: assert_unsuitable(x), shape)


def assert_unsuitable(x):
    assert not native.suits(x, x, x)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(value):
    arrays, others = arguments(4, 4, 8)
    arrays["query"] = arrays["query"].at[0, 1, 2, 1, 3].set(value)
    found = native.attend(**arrays, **others)
    with library.without():
        wanted = plain.attend(**arrays, **others)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_large_scores():
    """All attention goes to one key; gradients of the rest are rounding errors."""
    arrays, others = arguments(4, 4, 8)
    arrays["query"] = 1e4 * arrays["query"]
    found, gradients = value_and_gradients(native.attend, arrays, others)
    with library.without():
        wanted, wanted_gradients = value_and_gradients(tuned.attend, arrays, others)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    chex.assert_trees_all_close(gradients, wanted_gradients, atol=1e-2)


@pytest.mark.parametrize("options", ["dropout", "mask and global vectors"])
def test_second_derivatives(options):
    arrays, others = arguments(3, 4, 4, **OPTIONS[options])

    def norm_of_gradient(attend, arrays):
        found = jax.grad(lambda x: jnp.sum(jnp.sin(attend(**x, **others))))(arrays)
        return sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(found))

    def second(attend):
        return jax.jit(jax.grad(functools.partial(norm_of_gradient, attend)))(arrays)

    found = second(native.attend)
    with library.without():
        wanted = second(tuned.attend)
    chex.assert_trees_all_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_batch_of_calls():
    arrays, others = arguments(4, 4, 8, bias=(A,), far=2)
    several = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), arrays)
    found = jax.vmap(lambda x: native.attend(**x, **others))(several)
    wanted = [
        native.attend(**jax.tree.map(lambda x, n=n: x[n], several), **others)
        for n in range(2)
    ]
    np.testing.assert_allclose(found, np.stack(wanted), atol=1e-6)


@pytest.mark.parametrize("how", comparing.WAYS)
def test_on_two_devices(how):
    drawn: dict[str, Any] = {} if how == "shard_map" else dict(dropout_rate=0.2)
    arrays, others = arguments(4, 6, 8, bias=(A,), far=2, **drawn)
    shared = {"bias": arrays.pop("bias")}

    def attend(shared, examples):
        return native.attend(**shared, **examples, **others)

    comparing.check_on_two_devices(how, attend, shared, arrays)


@pytest.mark.parametrize("options", ["bias", "one bias of all heads", "global queries"])
def test_on_several_cores(options, monkeypatch):
    arrays, others = arguments(4, 6, 8, **OPTIONS[options])
    attend = functools.partial(native.attend, **others)
    wanted = value_and_gradients(attend, arrays, {})
    monkeypatch.setattr(calls, "threads", lambda: 2)
    found = value_and_gradients(functools.partial(native.attend, **others), arrays, {})
    chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_products_are_counted():
    arrays, others = arguments(4, 6, 8, far=2)
    count = multiply_adds(lambda x: tuned.attend(**x, **others), arrays)
    assert count == 2 * B * N * A * 4 * (6 + 2) * 8


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("key", (B, N, 6, A, 4)),
        ("value", (B, N, 5, A, 8)),
        ("bias", (A, 4, 5)),
        ("mask", (N + 1, 4, 6)),
        ("global_value", (B, 3, A, 8)),
        ("query", (N, 4, A, 8)),
    ],
)
def test_other_shapes_are_refused(name, shape):
    """As in JAX: a function in C++ would read what is not there."""
    arrays, others = arguments(4, 6, 8, bias=(A,), far=2, mask=True)
    wrong = np.ones(shape, bool) if name == "mask" else jnp.ones(shape)
    with pytest.raises(ValueError, match="expected"):
        tuned.attend(**arrays | others | {name: wrong})
