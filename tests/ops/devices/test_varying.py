"""Functions with their own gradients in `jax.shard_map` with `check_vma=True`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops.devices.varying import vary_alike, vary_like, varying_axes
from earthformer_jax.ops.tuned.attention import softmax_attention
from earthformer_jax.ops.tuned.dense import dense
from earthformer_jax.ops.tuned.frame_convolution import LEAST_CHANNELS, convolve_frames
from earthformer_jax.ops.tuned.gelu import gelu
from earthformer_jax.ops.tuned.loop_convolution import convolve_clips, convolve_in_loop
from earthformer_jax.ops.tuned.norm import layer_norm
from earthformer_jax.ops.tuned.recompute import recompute
from earthformer_jax.ops.tuned.stencil import apply_stencil
from earthformer_jax.ops.tuned.strided import enlarge, shrink
from earthformer_jax.ops.tuned.upsample import upsample_convolve

C = LEAST_CHANNELS
ONE = ((1, 1), (1, 1))
KERNEL = (3, 3, C, 2)


def attention(x, bias):
    key = jax.random.key(0)
    return softmax_attention(x, x, x, bias, None, 0.5, key)


def two_layers(x, weights):
    return recompute((dense, lambda x, w: gelu(x) * w), x, (weights, weights[0]))


# Function of x, whose first axis is split, and of weights, which are replicated.
FUNCTIONS = {
    "attention": (attention, (2, 3, 1, 2, 4), (1, 2, 2)),
    "clips": (convolve_clips, (2, 2, 4, 4, 1), (3, 3, 3, 1, 1)),
    "dense": (dense, (2, 3, 4), (4, 5)),
    "frames": (convolve_frames, (2, 1, 4, 4, C), KERNEL),
    "gelu": (lambda x, w: gelu(x * w), (2, 3), (3,)),
    "in loop": (lambda x, w: convolve_in_loop(x, w, ONE), (2, 4, 4, C), KERNEL),
    "norm": (lambda x, w: layer_norm(x, w, w, 1e-5), (2, 3, 4), (4,)),
    "recompute": (two_layers, (2, 3, 4), (4, 4)),
    "shrink": (lambda x, w: shrink(x, w, 2), (2, 4, 4, C), KERNEL),
    "enlarge": (lambda x, w: enlarge(x, w, 2), (2, 4, 4, C), KERNEL),
    "stencil": (
        lambda x, w: apply_stencil(x, w, ((0, 0), (0, 1)), (4, 4)),
        (2, 4, 4, 3),
        (2, 3),
    ),
    "upsample": (
        lambda x, w: upsample_convolve(x, w, (8, 8)),
        (2, 4, 4, C),
        KERNEL,
    ),
}


def gradient(function):
    """Gradient of a sum of squares, in x and in the weights."""
    return jax.grad(lambda x, w: jnp.sum(jnp.square(function(x, w))), argnums=(0, 1))


def in_shard_map(function, mesh):
    split, same = jax.P("data"), jax.P()
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(split, same),
        out_specs=(split, same),
        check_vma=True,
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient_is_as_varying_as_its_argument(name):
    """`out_specs` require it; tracing is enough to check."""
    function, x, w = FUNCTIONS[name]
    mesh = jax.sharding.AbstractMesh(
        (2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
    )
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in (x, w)]
    found = jax.eval_shape(in_shard_map(gradient(function), mesh), *shapes)
    assert [y.shape for y in found] == [x, w]


@pytest.mark.parametrize("name", ["dense", "norm"])
def test_gradient_of_weights_is_summed(name):
    """Over all devices."""
    function, *shapes = FUNCTIONS[name]
    random = np.random.default_rng(0)
    x, w = (random.normal(size=shape).astype(np.float32) for shape in shapes)
    mesh = jax.make_mesh(
        (2,),
        ("data",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:2],
    )
    have = jax.jit(in_shard_map(gradient(function), mesh))(x, w)
    want = jax.jit(gradient(function))(x, w)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), have, want
    )


def test_vary():
    """What has gradients varies alike, and all of the state of a loop."""
    mesh = jax.sharding.AbstractMesh(
        (2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
    )
    found = []

    def function(x, w):
        count = jnp.zeros((), jnp.int32)
        alike = vary_alike(x, dict(w=w), count, None)
        found.extend(varying_axes(y) for y in (x, w, *alike[1:3], alike[3]))
        found.append(varying_axes(vary_like((count, w), x)[0]))
        return x, w

    shapes = [jax.ShapeDtypeStruct((2,), jnp.float32)] * 2
    jax.eval_shape(in_shard_map(function, mesh), *shapes)
    varies, same = {"data"}, set()
    assert found == [varies, same, varies, same, same, varies]
    x = jnp.zeros(2)
    assert vary_alike(x)[0] is x
    assert vary_like(x, x) is x
