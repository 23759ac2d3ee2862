"""What FAConvLSTM and ConvLSTM cost: parameters and multiply-adds, by the formulas."""

import jax
import jax.numpy as jnp
import pytest

from earthformer_jax.models.recurrent import ConvLSTM, FAConvLSTM


def parameters(c, f, k, r, m=3, axial=True):
    """The number of parameters, by the formula."""
    s, d = max(4, r // 4), max(8, f // 4)
    core = (
        r * (c + f) + m * k**2 * r + m + (2 * r * s + r + s) + 4 * f * (r + 1) + 3 * f
    )
    return core + (8 * f * d + 4 * f + 2 * f if axial else 0)


@pytest.mark.parametrize(
    ("c", "f", "k", "r", "core", "whole", "dense"),
    [
        (7, 64, 3, 16, 6_263, 14_839, 163_840),
        (7, 64, 3, 32, 12_331, 20_907, 163_840),
        (64, 64, 3, 32, 14_155, 22_731, 295_168),
        (64, 64, 5, 32, 15_691, 24_267, 819_456),
        (128, 128, 3, 64, 53_907, 87_443, 1_180_160),
    ],
)
def test_numbers_of_parameters(c, f, k, r, core, whole, dense):
    def count(layer):
        x = jnp.zeros((1, 1, 9, 9, c))
        v = jax.eval_shape(layer.init, jax.random.key(0), x)
        return sum(a.size for a in jax.tree.leaves(v))

    options = dict(filters=f, kernel_size=k, padding="same")
    off = dict(bottleneck=r, attention_every=0)
    assert count(FAConvLSTM(**options, **off)) == parameters(c, f, k, r, axial=False)
    assert parameters(c, f, k, r, axial=False) == core
    assert count(FAConvLSTM(**options, bottleneck=r)) == parameters(c, f, k, r) == whole
    assert count(ConvLSTM(**options)) == 4 * f * (k**2 * (c + f) + 1) == dense


@pytest.mark.usefixtures("optimised", "without_native")
def test_multiply_adds_of_the_compiled_program():
    """One step at c = f = 128, r = 64 on 64x64: five per cent off the formulas."""
    c = f = 128
    k, r, m, h, w, d = 3, 64, 3, 64, 64, 32
    x = jnp.zeros((1, 1, h, w, c))

    def multiply_adds(layer):
        v = jax.eval_shape(layer.init, jax.random.key(0), x)
        compiled = jax.jit(layer.apply).lower(v, x).compile()
        return compiled.cost_analysis()["flops"] / 2 / (h * w)

    options = dict(filters=f, kernel_size=k, padding="same")
    core = r * (c + f) + 2 * m * k**2 * r + r + 4 * f * r
    axial = 8 * f * d + 2 * d * (h + w)
    have = multiply_adds(FAConvLSTM(**options, bottleneck=r, attention_every=0))
    assert have == pytest.approx(core, rel=0.05)
    have = multiply_adds(FAConvLSTM(**options, bottleneck=r, attention_every=1))
    assert have == pytest.approx(core + axial, rel=0.05)
    have = multiply_adds(ConvLSTM(**options))
    assert have == pytest.approx(4 * f * k**2 * (c + f), rel=0.05)
