"""Every tuned function equals the plain one, and forward mode equals reverse mode."""

import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops import forward_mode, tuned
from earthformer_jax.ops.tuned.attention import softmax_attention
from earthformer_jax.ops.tuned.dense import dense
from earthformer_jax.ops.tuned.frame_convolution import convolve, convolve_frames
from earthformer_jax.ops.tuned.gelu import gelu
from earthformer_jax.ops.tuned.hashed_key import hashed_key
from earthformer_jax.ops.tuned.loop_convolution import convolve_clips, convolve_in_loop
from earthformer_jax.ops.tuned.norm import group_norm, layer_norm
from earthformer_jax.ops.tuned.order import materialize
from earthformer_jax.ops.tuned.recompute import recompute
from earthformer_jax.ops.tuned.repeated import call_in_loop
from earthformer_jax.ops.tuned.stencil import apply_stencil
from earthformer_jax.ops.tuned.strided import (
    enlarge,
    enlarge_in_loop,
    shrink,
    shrink_in_loop,
)
from earthformer_jax.ops.tuned.upsample import upsample_convolve

MASK = np.array([[[True, False], [False, False]], [[True, True], [False, True]]])
QUERY, KEY, VALUE = (1, 2, 1, 2, 3), (1, 2, 1, 2, 3), (1, 2, 1, 2, 4)
CORNERS = ((0, 0), (-1, 1), (2, -1))
SAME = ((1, 1), (0, 1))

# Function, shapes of what it is differentiated in, and the other arguments.
CASES = {
    "dense, wide": (dense, [(2, 2, 3), (3, 4), (4,)], {}),
    "dense, narrow": (dense, [(2, 2, 4), (4, 3)], {}),
    "gelu": (gelu, [(2, 5)], {}),
    "layer_norm": (layer_norm, [(2, 2, 5), (5,), (5,)], dict(epsilon=1e-5)),
    "group_norm": (
        group_norm,
        [(2, 2, 3, 6), (6,), (6,)],
        dict(groups=3, epsilon=1e-5, slope=0.1),
    ),
    "materialize": (materialize, [(2, 3)], {}),
    "recompute": (
        lambda x, a, b: recompute((_widen, _narrow), x, (a, b)),
        [(2, 2, 3), (3, 4), (4, 2)],
        {},
    ),
    "attention": (softmax_attention, [QUERY, KEY, VALUE, (1, 2, 2)], {}),
    "attention, masked": (softmax_attention, [QUERY, KEY, VALUE], dict(mask=MASK)),
    "attention, dropped": (
        softmax_attention,
        [QUERY, KEY, VALUE],
        dict(dropout_rate=0.5, dropout_key=hashed_key(jax.random.key(3))),
    ),
    "convolve_in_loop": (
        convolve_in_loop,
        [(1, 3, 4, 2), (3, 2, 2, 3)],
        dict(padding=SAME, wrap=True),
    ),
    "convolve": (convolve, [(1, 3, 4, 2), (3, 2, 2, 3)], dict(padding=SAME)),
    "convolve_clips": (convolve_clips, [(1, 3, 3, 2, 2), (2, 3, 2, 2, 2)], {}),
    "convolve_frames": (convolve_frames, [(1, 2, 3, 2, 64), (3, 1, 64, 2)], {}),
    "shrink": (shrink, [(1, 4, 2, 2), (3, 3, 2, 2)], dict(stride=2)),
    "shrink_in_loop": (shrink_in_loop, [(1, 4, 2, 2), (3, 3, 2, 2)], dict(stride=2)),
    "enlarge": (enlarge, [(1, 2, 1, 2), (3, 3, 2, 2)], dict(stride=2)),
    "enlarge_in_loop": (enlarge_in_loop, [(1, 2, 1, 2), (3, 3, 2, 2)], dict(stride=2)),
    "stencil": (
        apply_stencil,
        [(2, 4, 4, 2), (3, 2)],
        dict(offsets=CORNERS, plane=(2, 2), strides=(2, 2), wrap=True),
    ),
    "upsample": (upsample_convolve, [(1, 2, 3, 2), (3, 3, 2, 2)], dict(plane=(4, 3))),
}


def _widen(x, kernel):
    return jnp.tanh(x @ kernel)


def _narrow(x, kernel):
    return jnp.sin(2 * x) @ kernel


def numbers(shapes, seed):
    random = np.random.default_rng(seed)
    return [jnp.asarray(random.normal(size=s), jnp.float32) for s in shapes]


def assert_close(have, want):
    """Equal to 1e-5 of the largest of each array."""
    for x, y in zip(*map(jax.tree.leaves, (have, want)), strict=True):
        atol = 1e-5 * max(float(jnp.abs(y).max()), 1e-2)
        np.testing.assert_allclose(x, y, rtol=0, atol=atol)


def test_every_tuned_function_has_a_case():
    modules = [
        importlib.import_module(f"{tuned.__name__}.{module.name}")
        for module in pkgutil.iter_modules(tuned.__path__)
    ]
    known = {f for module in modules for f in vars(module).values() if _is_tuned(f)}
    # The first is in a case as part of another function; gradients are taken inside of
    # the second, never of it (test_repeated.py).
    elsewhere = {recompute, call_in_loop}
    assert known - {f for f, _, _ in CASES.values()} == elsewhere


def _is_tuned(f):
    return hasattr(f, "plain") and hasattr(f, "tuned")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_values_gradients_and_forward_mode(case):
    """Also second derivatives: forward over reverse against reverse over reverse."""
    function, shapes, options = CASES[case]
    inputs, direction = numbers(shapes, 0), numbers(shapes, 1)

    def out(inputs):
        return function(*inputs, **options)

    def loss(inputs):
        return jnp.sum(jnp.sin(out(inputs)))

    def along(inputs):
        """The gradient's product with the direction."""
        products = jax.tree.map(jnp.vdot, jax.grad(loss)(inputs), direction)
        return sum(jax.tree.leaves(products))

    @jax.jit
    def by_reverse(inputs):
        value, pull = jax.vjp(out, inputs)
        return value, pull(jnp.cos(value))[0], along(inputs), jax.grad(along)(inputs)

    @jax.jit
    def by_forward(inputs):
        value, change = jax.jvp(out, (inputs,), (direction,))
        gradient, curved = jax.jvp(jax.grad(loss), (inputs,), (direction,))
        return value, gradient, jnp.vdot(jnp.cos(value), change), curved

    want = by_reverse(inputs)
    with forward_mode():
        have = by_forward(inputs)
    assert_close(have, want)


@pytest.mark.parametrize("case", ["dense, wide", "gelu", "layer_norm", "attention"])
def test_outside_of_forward_mode_jax_says_no(case):
    function, shapes, options = CASES[case]
    inputs = numbers(shapes, 0)
    with pytest.raises(TypeError, match="forward-mode autodiff"):
        jax.jvp(lambda *a: function(*a, **options), inputs, inputs)


@pytest.mark.parametrize("offset", [1e3, 5e4, 1e6])
def test_gradients_of_attention_with_large_scores(offset):
    """A number added to all scores changes nothing, however large it is."""
    inputs = numbers([(1, 1, 1, 3, 4)] * 3, 0)
    bias = jnp.full((1, 3, 3), offset)
    direction = numbers([(1, 1, 1, 3, 4)], 1)[0]

    def gradient(function):
        def loss(inputs):
            return jnp.vdot(function(*inputs, bias), direction)

        return jax.grad(loss)(inputs)

    assert_close(gradient(softmax_attention), gradient(softmax_attention.plain))


@pytest.mark.parametrize("kind", ["plain", "tuned"])
def test_second_derivatives_where_nothing_is_allowed(kind):
    """Queries without any key give zeros, and so are all derivatives there."""
    function = getattr(softmax_attention, kind)
    inputs = numbers([QUERY, KEY, VALUE], 0)

    def loss(inputs):
        return jnp.sum(jnp.exp(function(*inputs, mask=MASK)))

    @jax.jit
    @jax.grad
    def curved(inputs):
        return sum(jnp.sum(jnp.square(x)) for x in jax.grad(loss)(inputs))

    query, *rest = curved(inputs)
    assert all(np.isfinite(x).all() for x in (query, *rest))
    assert not query[0, 0, 0, 1].any() and query[0, 1, 0, 0].any()
