"""What attention in cuboids copies, stores and multiplies, in its compiled programs."""

import pytest

from earthformer_jax.models.earthformer.cuboid_attention import CuboidSelfAttention
from earthformer_jax.models.earthformer.options import AttentionOptions
from earthformer_jax.ops.cuboid import CuboidSpec
from tests.programs import (
    Limits,
    faults,
    forward_program,
    gradient_program,
    shapes,
)

pytestmark = pytest.mark.usefixtures("without_native")
FIELD = shapes((2, 4, 8, 8, 64))  # 512 rows of 64 channels
VECTORS = shapes((2, 8, 64))
LINEAR = {(1, (64, 192, 512)): 1, (1, (64, 64, 512)): 1}  # to q, k and v; and out


def attention(size):
    return CuboidSelfAttention(AttentionOptions(num_heads=4), CuboidSpec(size))


def products(inside, cuboids):
    """Products of a gradient: two inside cuboids, and the weights once more."""
    return {sides: 3 for sides in LINEAR} | {(4 * cuboids, inside): 7}


def test_forward():
    """To q, k and v, weights, weighted values, and out: sorted into cuboids and back.

    Whatever the size of the field, 1 + 4 + 1 fields are copied: the field and what
    comes out of cuboids, and q, k, v and the result by heads.
    """
    limits = Limits(
        LINEAR | {(4 * 128, (4, 4, 16)): 2},
        copied=6.05,
        transposed=6,
        accessed=39.6,
        planned=5,
        exponentials=0.25,
    )
    assert faults(forward_program(attention((4, 1, 1)), FIELD), *FIELD, limits) == []


@pytest.mark.parametrize(
    ("size", "limits"),
    [
        (
            (4, 1, 1),
            Limits(
                products((4, 4, 16), cuboids=128),
                copied=18.35,
                transposed=18.3,
                accessed=113,
                planned=10.2,
                exponentials=0.5,
                across_rows=2,
            ),
        ),
        pytest.param(
            (1, 8, 1),
            Limits(
                products((8, 8, 16), cuboids=64),
                copied=18.65,
                transposed=18.55,
                accessed=119.3,
                planned=10.1,
                exponentials=1,
                across_rows=2,
            ),
            marks=pytest.mark.slow,
        ),
        # Rows of the field are cuboids: nothing is sorted but heads.
        (
            (1, 1, 8),
            Limits(
                products((8, 8, 16), cuboids=64),
                copied=15.6,
                transposed=13.5,
                accessed=117.3,
                planned=10.1,
                exponentials=1,
                across_rows=2,
            ),
        ),
    ],
    ids=["along t", "along h", "along w"],
)
def test_gradients(size, limits):
    """Of the products, only the kernels' gradients read across rows."""
    assert faults(gradient_program(attention(size), FIELD), *FIELD, limits) == []


@pytest.mark.slow
def test_gradients_with_global_vectors():
    """8 keys more in each cuboid; and the vectors read 256 rows and 8 of their own."""
    inputs = FIELD + VECTORS
    limits = Limits(
        products((4, 12, 16), cuboids=128)
        | {
            (1, (16, 64, 192)): 3,
            (1, (16, 64, 64)): 3,
            (2, (8, 32, 64)): 3,
            (2, (32, 64, 256)): 3,
            (2, (32, 64, 264)): 3,
        },
        copied=21.6,
        transposed=21.5,
        accessed=197.4,
        planned=19.8,
        exponentials=2.02,
        across_rows=8,
    )
    program = gradient_program(attention((4, 1, 1)), inputs)
    assert faults(program, inputs[0], limits) == []
