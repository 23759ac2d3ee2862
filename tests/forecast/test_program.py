"""Programs that need only JAX: open batch, every platform, nothing of this machine."""

import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.data.climatology import Climatology
from earthformer_jax.data.forecasting.encoding import Encoding
from earthformer_jax.forecast import program
from earthformer_jax.forecast.physical import physical

SHAPE = T, H, W, C = 3, 2, 4, 2
STEPS = 2
WEIGHTS = {"params/a": np.float32(3), "params/b/kernel": np.ones((2, 2), np.float32)}


def encoding(monthly=False):
    cycle = None
    if monthly:
        values = np.arange(12 * H * W * C, dtype=np.float32).reshape(12, H, W, C)
        cycle = Climatology(values, monthly=True)
    ones = np.ones(C, np.float32)
    return Encoding(scale=2 * ones, offset=0 * ones, targets=C, climatology=cycle)


def on_cpu(weights, inputs):
    mixed = jnp.einsum("bthwc,cd->bthwd", inputs, weights["params/b/kernel"])
    return weights["params/a"] * mixed[:, -STEPS:]


def elsewhere(weights, inputs):
    return -on_cpu(weights, inputs)


def exported(monthly=False):
    arguments = encoding(monthly), WEIGHTS, SHAPE, STEPS
    return jax.export.deserialize(
        bytearray(program.export(on_cpu, elsewhere, *arguments))
    )


@pytest.mark.parametrize("monthly", [False, True])
def test_any_number_of_examples(monthly):
    made = exported(monthly)
    want = physical(on_cpu, encoding(monthly))
    for b in (1, 3):
        inputs = np.random.default_rng(b).normal(size=(b, *SHAPE)).astype(np.float32)
        inputs[:, 1, 0, 0] = np.nan
        given: list[np.ndarray] = [inputs]
        if monthly:
            times = 43_200 * np.arange(b * (T + STEPS), dtype=np.int32)
            given.append(times.reshape(b, T + STEPS))
        got = made.call(WEIGHTS, *given)
        np.testing.assert_allclose(got, want(WEIGHTS, *given), rtol=1e-6)


def test_every_platform_has_its_own_form():
    """The form for CPUs is a branch that other devices do not take."""
    made = exported()
    assert made.platforms == program.PLATFORMS == ("cpu", "cuda", "tpu")
    text = made.mlir_module()
    assert "stablehlo.case" in text
    assert len(re.findall("stablehlo.negate", text)) == 1
    assert set(re.findall(r"custom_call @(\w+)", text)) <= {"shape_assertion"}
    assert "callback" not in text


def test_shapes_are_checked():
    made = exported()
    with pytest.raises(ValueError, match="shape"):
        made.call(WEIGHTS, np.zeros((1, T, H, W + 1, C), np.float32))
    with pytest.raises(ValueError, match="[Dd]type"):
        made.call(WEIGHTS, np.zeros((1, *SHAPE), np.int32))
