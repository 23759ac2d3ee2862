"""Frames to latents and back: shapes, counts, locality, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.layers.frame_coder import (
    FrameDecoder,
    FrameEncoder,
    mirrored_features,
    stage_features,
)


def test_channels_of_the_stages():
    assert stage_features(2) == (64,)
    assert stage_features(4) == (8, 64)
    assert stage_features(8) == (8, 16, 64)
    assert mirrored_features(8, 3) == (16, 8, 3)
    assert mirrored_features(2, 1) == (1,)
    assert FrameEncoder.features == stage_features(8)
    assert FrameDecoder.features == mirrored_features(8, 1)
    for wrong in (0, 1, 3, 12, -8):
        with pytest.raises(ValueError, match=f"power of two, 2 or more; got {wrong}"):
            stage_features(wrong)


def test_shapes_and_parameters_of_the_reconstruction():
    frames = jax.ShapeDtypeStruct((2, 3, 384, 384, 1), jnp.float32)
    z, v = jax.eval_shape(FrameEncoder().init_with_output, jax.random.key(0), frames)
    y, w = jax.eval_shape(FrameDecoder().init_with_output, jax.random.key(0), z)
    assert z.shape == (2, 3, 48, 48, 64)
    assert y.shape == frames.shape
    assert sum(a.size for a in jax.tree.leaves((v, w))) == 37_233


@pytest.mark.slow
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_every_frame_is_coded_on_its_own(lead):
    x = jax.random.normal(jax.random.key(0), (*lead, 8, 16, 2))
    encoder, decoder = FrameEncoder((4, 6)), FrameDecoder((4, 2))
    z, v = encoder.init_with_output(jax.random.key(1), x)
    y, w = decoder.init_with_output(jax.random.key(2), z)
    assert z.shape == (*lead, 2, 4, 6)
    assert y.shape == x.shape
    if lead:
        first = (0,) * len(lead)
        one = decoder.apply(w, encoder.apply(v, x[first]))
        np.testing.assert_allclose(one, y[first], atol=1e-6)


@pytest.mark.parametrize("stage", ["encoder", "decoder"])
def test_a_kernel_of_ones_by_hand(stage):
    """Sums of 4x4 windows at every second position; and each input spread over one."""
    layer = (FrameEncoder if stage == "encoder" else FrameDecoder)((1,))
    x = np.random.default_rng(0).normal(size=(4, 6, 1)).astype("float32")
    v = layer.init(jax.random.key(0), x)
    v = jax.tree.map(lambda a: jnp.full(a.shape, float(a.ndim > 1)), v)
    have = layer.apply(v, x)[..., 0]
    want = np.zeros(have.shape)
    for i in range(min(4, len(have))):
        for j in range(min(6, have.shape[1])):
            rows, columns = (slice(max(2 * k - 1, 0), 2 * k + 3) for k in (i, j))
            if stage == "encoder":
                want[i, j] = x[rows, columns].sum()
            else:
                want[rows, columns] += x[i, j, 0]
    np.testing.assert_allclose(have, want, atol=1e-5)


def test_frames_that_cannot_be_halved():
    with pytest.raises(ValueError, match="12x20 cannot be halved 3 times; pad .* of 8"):
        FrameEncoder().init(jax.random.key(0), jnp.zeros((12, 20, 1)))
