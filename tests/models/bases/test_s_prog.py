"""The base S-PROG: what `ops.nowcasting.sprog` forecasts, for batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.models import create_model
from earthformer_jax.models.bases import create_base
from earthformer_jax.ops.nowcasting.motion import motion
from earthformer_jax.ops.nowcasting.sprog import s_prog
from tests.ops.nowcasting.test_cascade import smooth_noise

SHAPES = (4, 12, 14, 2), (2, 12, 14, 1)


def test_the_forecast_is_that_of_the_function():
    """Of the first channel alone, which is the target."""
    base = create_base("s_prog", *SHAPES)
    fields = np.maximum(smooth_noise((12, 14), 16), 0)
    inputs = jnp.moveaxis(jnp.asarray(fields).reshape(2, 4, 2, 12, 14), 2, -1)
    assert base.init(jax.random.key(0), inputs) == {}
    found = jax.jit(base.apply)({}, inputs)
    assert found.shape == (2, 2, 12, 14, 1) and found.dtype == np.float32
    frames = inputs[1, ..., :1]
    expected = jax.jit(lambda x: s_prog(x, motion(x), 2))(frames)
    np.testing.assert_allclose(found[1], expected, atol=1e-4)


def test_two_frames_are_too_few():
    message = "base='s_prog': input frames=2 do not show how rain changes; .* least 3"
    with pytest.raises(ValueError, match=message):
        create_model("unet", (2, 16, 16, 1), (2, 16, 16, 1), base="s_prog")
