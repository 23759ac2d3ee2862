"""What recurrent layers copy, store and multiply, read from their compiled gradients.

Six steps of two examples of 8 x 8 points: 128 rows in a step, 768 in all.
"""

import jax
import jax.numpy as jnp
import pytest

from earthformer_jax.models.recurrent import ConvLSTM, FAConvLSTM
from earthformer_jax.models.recurrent.spatiotemporal_lstm import SpatiotemporalLSTM
from tests.programs import (
    Limits,
    check_growth,
    compiled,
    cost,
    faults,
    gradient_program,
    shapes,
)

pytestmark = pytest.mark.usefixtures("without_native")

STEPS = 6
FIELD = shapes((2, STEPS, 8, 8, 16))
OPTIONS = dict(filters=16, kernel_size=3, padding="same", return_sequences=True)


def test_conv_lstm():
    """In a step only the state is convolved; inputs of all steps at once, by gate."""
    limits = Limits(
        {(1, (64, 128, 144)): STEPS * 3, (1, (16, 144, 768)): 4 * 3},
        copied=24.01,
        transposed=9.5,
        accessed=112.9,
        planned=16.6,
        exponentials=10,
        loops=2,
        across_rows=STEPS,
    )
    assert faults(gradient_program(ConvLSTM(**OPTIONS), FIELD), *FIELD, limits) == []


@pytest.mark.parametrize(
    "grown", [(2, 8 * STEPS, 8, 8, 16), (4, STEPS, 16, 16, 16)], ids=["steps", "rows"]
)
def test_gradients_of_conv_lstm_grow_in_proportion(grown):
    """Nothing that has all steps is copied in each of them."""
    least, most = (
        cost(gradient_program(ConvLSTM(**OPTIONS), fields))
        for fields in (FIELD, shapes(grown))
    )
    check_growth(least, most, 8)


@pytest.mark.slow
def test_predrnn():
    """In a step one convolution each of the input, the state, the memory, and both."""
    layer = SpatiotemporalLSTM(
        channels=16, num_layers=1, features=16, kernel_size=3, layer_norm=False
    )
    true = jnp.ones((2, STEPS, 1, 1, 1), bool)

    def loss(variables, frames):
        return jnp.mean(jnp.square(layer.apply(variables, frames, true)[0]))

    variables = jax.eval_shape(layer.init, jax.random.key(0), *FIELD, true)
    limits = Limits(
        {
            (1, (112, 128, 144)): STEPS * 3,
            (1, (64, 128, 144)): STEPS * 3,
            (1, (48, 128, 144)): STEPS * 3,
            (1, (16, 128, 288)): STEPS * 3,
            (1, (16, 32, 128)): STEPS * 3,  # both, point by point
            (1, (16, 16, 128)): STEPS * 3,  # the forecast
        },
        copied=45,
        transposed=2,
        accessed=346,
        planned=83.6,
        exponentials=8,
        loops=2,
        across_rows=STEPS * 6,
    )
    program = compiled(jax.grad(loss, (0, 1)), variables, *FIELD)
    assert faults(program, *FIELD, limits) == []


@pytest.mark.slow
def test_fa_conv_lstm():
    """In a step products of 8 channels, their gradient, and part of them once more.

    Attention, along rows and columns, counts in every step: the text of a program does
    not say how often a condition holds.
    """
    layer = FAConvLSTM(**OPTIONS, bottleneck=8)
    limits = Limits(
        {
            (1, (8, 16, 768)): 3,  # the input's bottleneck, all steps at once
            (1, (8, 16, 128)): STEPS * (3 + 9),  # the state's; and values' of attention
            (1, (8, 64, 128)): STEPS * 4,  # the gates
            (1, (2, 4, 8)): STEPS * 8,  # weights of channels
            (1, (16, 24, 128)): STEPS * 8,  # queries, keys and values of two axes
            (16, (8, 8, 8)): STEPS * 18,  # attention along two axes
        },
        copied=74.8,
        transposed=47,
        accessed=121,
        planned=8.8,
        exponentials=14.02,
        loops=3,
        across_rows=STEPS * 8 + 1,
    )
    assert faults(gradient_program(layer, FIELD), *FIELD, limits) == []
