"""Convolution of frames, and its kernel's gradient in blocks of rows."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops.tuned import frame_convolution as lib


def numbers(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def plain(x, kernel):
    """Every frame by `lax.conv`, with JAX's own gradient."""

    def one(frames):
        return jax.lax.conv_general_dilated(
            frames, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    return jnp.stack([one(frames) for frames in x])


@pytest.mark.parametrize("block_bytes", [1, 1500, 2**20])
@pytest.mark.parametrize("window", [(3, 3), (5, 1), (1, 1)])
def test_values_and_gradients(monkeypatch, window, block_bytes):
    """Blocks of one row, of some rows, and of whole frames."""
    monkeypatch.setattr(lib, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(lib, "LEAST_CHANNELS", 3)
    x, kernel = numbers(2, 3, 6, 5, 3), numbers(*window, 3, 7, seed=1)
    results = [
        jax.jit(jax.value_and_grad(lambda *a, f=f: jnp.sin(f(*a)).sum(), (0, 1)))(
            x, kernel
        )
        for f in (lib.convolve_frames, plain)
    ]
    chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        lib.convolve_frames(x, kernel), plain(x, kernel), atol=1e-5
    )


@pytest.mark.parametrize("channels, own", [(16, False), (64, True)])
def test_the_gradient_is_chosen_by_the_channels(channels, own):
    x, kernel = numbers(1, 1, 4, 4, channels), numbers(3, 3, channels, 2)
    program = str(
        jax.make_jaxpr(jax.grad(lambda k: lib.convolve_frames(x, k).sum()))(kernel)
    )
    assert ("scan[" in program) == own


@pytest.mark.parametrize(
    "height, row_bytes, want", [(64, 2**14, 64), (128, 2**15, 32), (33, 2**16, 11)]
)
def test_blocks_divide_the_height(height, row_bytes, want):
    assert lib._block_rows(height, row_bytes) == want


def test_a_row_that_is_too_long_is_a_block():
    assert lib._block_rows(7, 2**30) == 1


def test_half_precision_adds_up_in_float32():
    x, dy = numbers(1, 2, 8, 8, 64), numbers(1, 2, 8, 8, 4, seed=1)
    padding = ((1, 1), (1, 1))
    half = lib.kernel_gradient(*(a.astype(jnp.bfloat16) for a in (x, dy)), padding)
    assert half.dtype == jnp.float32
    want = lib.kernel_gradient(x, dy, padding)
    np.testing.assert_allclose(half, want, atol=0.02 * float(jnp.abs(want).max()))


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_examples_on_several_devices():
    """No device needs another's examples, but for one sum at the end."""
    devices = jax.devices()[:2]
    if len(devices) < 2:
        pytest.skip("needs two devices")
    mesh = jax.sharding.Mesh(devices, ("data",))
    spread = jax.NamedSharding(mesh, jax.P("data"))
    x, dy = numbers(2, 2, 8, 6, 64), numbers(2, 2, 8, 6, 3, seed=1)
    padding = ((1, 1), (1, 1))
    arguments = jax.device_put((x, dy), spread)
    function = jax.jit(
        lambda x, dy: lib.kernel_gradient(x, dy, padding),
        out_shardings=jax.NamedSharding(mesh, jax.P()),
    )
    program = function.lower(*arguments).compile()
    text = program.as_text()
    assert "all-gather" not in text and text.count(" all-reduce(") <= 1
    np.testing.assert_allclose(
        program(*arguments), lib.kernel_gradient(x, dy, padding), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    "shape, window, message",
    [
        ((2, 4, 4, 3), (3, 3, 3, 2), r"\(b, t, h, w, c\).*got \(2, 4, 4, 3\)"),
        ((1, 2, 4, 4, 3), (3, 3, 5, 2), r"got .* and \(3, 3, 5, 2\)"),
        (
            (1, 2, 4, 4, 3),
            (2, 3, 3, 2),
            "odd sides so that frames keep their size; got 2 x 3",
        ),
    ],
)
def test_errors(shape, window, message):
    with pytest.raises(ValueError, match=message):
        lib.convolve_frames(jnp.ones(shape), jnp.ones(window))
