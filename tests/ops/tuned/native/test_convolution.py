"""Convolutions in C++ equal those of JAX, and are used in their place."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.layers.convolution import Conv, FrameConv
from earthformer_jax.models import remat
from earthformer_jax.ops import convolution as plain
from earthformer_jax.ops import forward_mode
from earthformer_jax.ops.tuned.loop_convolution import convolve_clips, convolve_in_loop
from earthformer_jax.ops.tuned.native import calls, library
from earthformer_jax.ops.tuned.native import convolution as native
from earthformer_jax.ops.tuned.strided import enlarge, shrink
from earthformer_jax.ops.tuned.upsample import upsample_convolve
from earthformer_jax.profiling.multiply_adds import multiply_adds
from tests.ops.tuned.native.comparing import (
    NEEDS_COMPILER,
    WAYS,
    check_on_two_devices,
    value_and_gradients,
)

pytestmark = NEEDS_COMPILER

# Planes, kernel, and zeros around: (top, bottom), (left, right).
SIZES = {
    "same": ((2, 5, 6, 3), (3, 3, 3, 16), ((1, 1), (1, 1))),
    "valid": ((1, 6, 7, 16), (3, 2, 16, 16), ((0, 0), (0, 0))),
    "even, and more zeros on one side": ((2, 4, 5, 2), (2, 4, 2, 32), ((1, 0), (0, 3))),
    "a row of parts": ((1, 3, 300, 4), (1, 5, 4, 16), ((0, 0), (2, 2))),
    "parts of several rows": ((2, 33, 9, 5), (3, 3, 5, 16), ((1, 1), (1, 1))),
    "several panels": ((1, 6, 6, 40), (3, 3, 40, 80), ((1, 1), (1, 1))),
    "a kernel as large as the plane": ((2, 3, 3, 2), (5, 5, 2, 16), ((2, 2), (2, 2))),
    "a kernel larger than the plane": ((1, 2, 2, 1), (5, 5, 1, 16), ((4, 4), (4, 4))),
}


def arguments(shape, kernel):
    random = np.random.default_rng(0)
    x, weights = (random.normal(size=size) for size in (shape, kernel))
    scale = np.prod(kernel[:3]) ** -0.5
    return jnp.asarray(x, jnp.float32), jnp.asarray(scale * weights, jnp.float32)


@pytest.mark.parametrize("size", SIZES)
def test_as_in_jax(size):
    *shapes, padding = SIZES[size]
    x, kernel = arguments(*shapes)
    assert native.suits(x, kernel, padding)
    found, wanted = (
        value_and_gradients(
            functools.partial(each.convolve, padding=padding), x, kernel
        )
        for each in (native, plain)
    )
    chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("shape", "kernel", "padding", "dtype"),
    [
        ((1, 4, 4, 2), (3, 3, 2, 15), 1, jnp.float32),
        ((1, 4, 4, 2), (1, 1, 2, 16), 0, jnp.float32),
        ((1, 4, 4, 2), (3, 3, 2, 16), 3, jnp.float32),
        ((0, 4, 4, 2), (3, 3, 2, 16), 1, jnp.float32),
        ((1, 4, 4, 2), (3, 3, 2, 16), 1, jnp.bfloat16),
    ],
)
def test_what_does_not_suit(shape, kernel, padding, dtype):
    x, kernel = (array.astype(dtype) for array in arguments(shape, kernel))
    assert not native.suits(x, kernel, ((padding,) * 2,) * 2)


def test_other_shapes_are_refused():
    x, kernel = arguments(*SIZES["same"][:2])
    with pytest.raises(ValueError, match="kernel has shape"):
        native.convolve(x, kernel[:, :, :2], ((1, 1), (1, 1)))
    with pytest.raises(ValueError, match="does not fit"):
        native.convolve(x[:, :1], kernel, ((0, 0), (1, 1)))


FIELD, FRAMES = (2, 6, 6, 16), (1, 2, 6, 6, 16)
USES = {
    "Conv": (lambda x, k: Conv(16, (3, 3)).apply(_params(k), x), FIELD, (3, 3)),
    "FrameConv": (lambda x, k: FrameConv(16).apply(_params(k), x), FRAMES, (3, 3)),
    "in a loop": (lambda x, k: convolve_in_loop(x, k, ((1, 1),) * 2), FIELD, (3, 3)),
    "around a globe": (
        lambda x, k: convolve_in_loop(x, k, ((1, 1),) * 2, wrap=True),
        FIELD,
        (3, 3),
    ),
    "of clips": (convolve_clips, FRAMES, (2, 3, 3)),
    "shrink": (lambda x, k: shrink(x, k, 2), FIELD, (3, 3)),
    "enlarge": (lambda x, k: enlarge(x, k, 2), FIELD, (3, 3)),
    "up-sampling": (lambda x, k: upsample_convolve(x, k, (12, 12)), FIELD, (3, 3)),
}


def _params(kernel):
    return {"params": dict(kernel=kernel, bias=jnp.ones(16))}


@pytest.mark.parametrize("use", USES)
def test_used(use):
    function, shape, sides = USES[use]
    x, kernel = arguments(shape, (*sides, 16, 16))
    assert library.target("convolution") in jax.jit(function).lower(x, kernel).as_text()
    found = value_and_gradients(function, x, kernel)
    for context in (library.without, forward_mode):
        with context():
            text = jax.jit(function).lower(x, kernel).as_text()
            assert library.target("convolution") not in text
    with library.without():
        wanted = value_and_gradients(function, x, kernel)
    chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("factor", "sides", "channels"),
    [
        ((2, 3), (3, 3), 16),
        ((3, 2), (5, 3), 16),
        ((1, 4), (3, 3), 4),  # several phases in a panel
        ((2, 2), (3, 5), 24),  # a phase in several panels
    ],
)
def test_phases_with_a_bias(factor, sides, channels):
    """Of up-sampling; some phases begin before the plane, others end after it, and some
    read fewer points than others.
    """
    x, kernel = arguments((2, 4, 5, 4), (*sides, 4, channels))
    plane = tuple(f * n for f, n in zip(factor, x.shape[1:3], strict=True))
    bias = jnp.linspace(-1, 1, channels)

    def function(x, kernel, bias):
        return upsample_convolve(x, kernel, plane, bias)

    text = jax.jit(function).lower(x, kernel, bias).as_text()
    assert library.target("convolution") in text
    found = value_and_gradients(function, x, kernel, bias)
    with library.without():
        wanted = value_and_gradients(function, x, kernel, bias)
    chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=1e-4)


def test_what_is_not_used_is_not_computed():
    *shapes, padding = SIZES["same"]
    x, kernel = arguments(*shapes)
    function = functools.partial(native.convolve, padding=padding)

    def of_kernel(kernel):
        return jax.grad(lambda kernel: function(x, kernel).sum())(kernel)

    text = jax.jit(of_kernel).lower(kernel).compile().as_text()
    assert library.target("convolution_kernel_gradient") in text
    assert library.target("convolution_plane_gradient") not in text


def test_what_is_not_finite_stays_so():
    x, kernel = arguments(*SIZES["same"][:2])
    found = native.convolve(x.at[0, 0, 0, 0].set(jnp.nan), kernel, ((1, 1), (1, 1)))
    assert np.isnan(found[0, :2, :2]).all()
    assert np.isfinite(found[0, 2:]).all() and np.isfinite(found[1]).all()


def test_second_derivatives():
    x, kernel = arguments(*SIZES["same"][:2])
    padding = SIZES["same"][2]

    def second(function):
        def norm_of_gradient(kernel):
            found = jax.grad(lambda *y: jnp.sum(jnp.sin(function(*y, padding))), (0, 1))
            return sum(jnp.sum(jnp.square(y)) for y in found(x, kernel))

        return jax.jit(jax.grad(norm_of_gradient))(kernel)

    found, wanted = second(native.convolve), second(plain.convolve)
    chex.assert_trees_all_close(found, wanted, rtol=1e-4, atol=1e-4 * abs(wanted).max())


@pytest.mark.parametrize("how", WAYS)
def test_on_two_devices(how):
    *shapes, padding = SIZES["same"]
    x, kernel = arguments(*shapes)
    check_on_two_devices(how, lambda k, x: native.convolve(x, k, padding), kernel, x)


@pytest.mark.parametrize("size", ["same", "parts of several rows"])
def test_on_several_cores(monkeypatch, size):
    *shapes, padding = SIZES[size]
    x, kernel = arguments(*shapes)
    function = functools.partial(native.convolve, padding=padding)
    wanted = value_and_gradients(function, x, kernel)
    monkeypatch.setattr(calls, "threads", lambda: 3)
    found = value_and_gradients(function, x, kernel)
    chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=2e-5)


def test_products_are_counted():
    x, kernel = arguments((1, 4, 4, 16), (3, 3, 16, 16))
    function = functools.partial(convolve_in_loop, padding=((1, 1),) * 2)
    assert multiply_adds(function, x, kernel) == 16 * 9 * 16 * 16


def test_kept_where_results_of_convolutions_are():
    x, kernel = arguments((1, 4, 4, 16), (3, 3, 16, 16))

    def loss(kernel):
        return jnp.sum(jnp.sin(convolve_in_loop(x, kernel, ((1, 1),) * 2)))

    def calls_of(name):
        policy = remat.policy_of(name)
        function = jax.value_and_grad(jax.checkpoint(loss, policy=policy))
        text = jax.jit(function).lower(kernel).as_text()
        return text.count(library.target("convolution") + "(")

    assert (calls_of("blocks"), calls_of("dots")) == (2, 1)
