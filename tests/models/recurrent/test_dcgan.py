"""Blocks of convolution, group norm and leaky ReLU: the published numbers, shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.interop import torch_phydnet
from earthformer_jax.models.recurrent.dcgan import DCGANBlock, DCGANStack
from tests import golden_files


def channels_last(array):
    return np.moveaxis(array, 1, -1)


def largest(have, want):
    """Largest difference relative to the largest value."""
    have, want = jax.tree.leaves(have), jax.tree.leaves(want)
    scale = max(np.abs(w).max() for w in want)
    return max(np.abs(h - w).max() for h, w in zip(have, want, strict=True)) / scale


@pytest.mark.parametrize("in_loop", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("up", [False, True])
def test_the_published_blocks(up, stride, in_loop, record_property):
    name = f"phydnet_dcgan_{'upconv' if up else 'conv'}_s{stride}"
    data = golden_files.load(f"baselines/{name}")
    layer = DCGANBlock(16, stride, up)

    def params(prefix):
        stored = dict(golden_files.group(data, prefix))
        return torch_phydnet.dcgan_block_params(stored, transposed=up)

    def forward(params, x):
        return layer.apply({"params": params}, x, in_loop=in_loop)

    @jax.jit
    def compute(params, x, cotangent):
        y, pull = jax.vjp(forward, params, x)
        return y, pull(cotangent)

    x, cotangent = (channels_last(data[k]) for k in ("input/x", "cotangent/y"))
    y, grads = compute(params("param"), x, cotangent)
    error = largest(y, channels_last(data["output/y"]))
    record_property("golden PhyDNet blocks output error", float(error))
    assert error < 1e-5
    want = (params("grad/param"), channels_last(data["grad/input/x"]))
    error = largest(grads, want)
    record_property("golden PhyDNet blocks gradient error", float(error))
    assert error < 1e-4


def test_a_stack_up_undoes_the_shape_of_a_stack_down():
    down = DCGANStack((4, 4, 8), (2, 1, 2), groups=2)
    up = DCGANStack((4, 4, 3), (2, 1, 2), up=True, last="conv", groups=2)
    x, key = jnp.ones((2, 8, 12, 3)), jax.random.key(0)
    small, variables = jax.eval_shape(down.init_with_output, key, x)
    assert small.shape == (2, 2, 3, 8)
    assert set(variables["params"]) == {"block_0", "block_1", "block_2"}
    large, variables = jax.eval_shape(up.init_with_output, key, small)
    assert large.shape == x.shape
    assert set(variables["params"]) == {"block_0", "block_1", "conv"}


def test_initial_weights_are_pytorchs():
    """Uniform up to 1 / sqrt(fan-in), which a transposed one counts from behind."""
    x = jnp.zeros((1, 4, 4, 64))
    for up, bound in ((False, 1 / 24), (True, 1 / 12)):
        params = DCGANBlock(16, up=up).init(jax.random.key(0), x)["params"]["conv"]
        for weights in params.values():
            assert 0.7 * bound < jnp.abs(weights).max() <= bound
        spread = jnp.std(params["kernel"])
        np.testing.assert_allclose(spread, bound / 3**0.5, rtol=0.05)
