"""In training, layers go through their field part by part: with the same results."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.layers.feed_forward import FeedForward, FeedForwardOptions
from earthformer_jax.models.earthformer.cuboid_attention import (
    CuboidCrossAttention,
    CuboidSelfAttention,
)
from earthformer_jax.models.earthformer.options import AttentionOptions
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.patterns import CrossSpec
from earthformer_jax.ops.tuned import in_parts
from tests.variables import drawn

GRID, CHANNELS = (4, 6, 6), 8
RNG = np.random.default_rng(0)
FIELD, MEMORY, VECTORS = (
    RNG.normal(size=(2, *shape, CHANNELS)).astype(np.float32)
    for shape in (GRID, (3, 6, 6), (2,))
)
OPTIONS = AttentionOptions(num_heads=2, attn_drop=0.3, proj_drop=0.3)
BETWEEN = dataclasses.replace(OPTIONS, separate_global_qkv=True)
IGNORE = dataclasses.replace(OPTIONS, padding="ignore")


def self_attention(size, options=OPTIONS, causal=False, **spec):
    return CuboidSelfAttention(options, CuboidSpec(size, **spec), causal)


CASES: dict[str, tuple[Any, tuple, int]] = {
    "feed-forward": (FeedForward(FeedForwardOptions(dropout=0.3)), (FIELD,), 8),
    "along t": (self_attention((4, 1, 1)), (FIELD, VECTORS), 3),
    "along h": (self_attention((1, 6, 1), BETWEEN), (FIELD, VECTORS), 4),
    # Windows of planes that need padding, which the vectors do not see.
    "windows": (
        self_attention((1, 4, 4), IGNORE, shift=(0, 2, 2)),
        (FIELD, VECTORS),
        4,
    ),
    "dilated": (self_attention((1, 3, 3), strategy="ldd", causal=True), (FIELD,), 4),
    "to a memory": (
        CuboidCrossAttention(BETWEEN, CrossSpec((1, 1), "lll", (0, 0)), 7),
        (FIELD, MEMORY, VECTORS),
        3,
    ),
}


def training(module):
    """Loss, results and gradients of all inputs and parameters, with dropout."""

    def loss(variables, inputs):
        rngs = {"dropout": jax.random.key(3)}
        found = module.apply(variables, *inputs, train=True, rngs=rngs)
        found = [y for y in jax.tree.leaves(found) if y is not None]
        return sum(jnp.square(y).sum() for y in found), found

    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("feed-forward", "along t", "to a memory")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in CASES
    ],
)
def test_equals_the_whole(name, monkeypatch):
    module, inputs, count = CASES[name]
    variables = drawn(module.init, *inputs)
    want = training(module)(variables, inputs)
    used = []

    def counted(fields, pieces):
        used.append(parts(fields, pieces))
        return used[-1]

    parts = in_parts.parts
    monkeypatch.setattr(in_parts, "PART_BYTES", FIELD.nbytes // 2 // count)
    monkeypatch.setattr(in_parts, "parts", counted)
    found = training(module)(variables, inputs)
    assert used and set(used) == {count}
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    jax.tree.map(compare, found, want)
