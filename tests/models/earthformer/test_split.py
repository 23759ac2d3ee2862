"""Fields split among devices: none has a whole one, and results are equal."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.models.earthformer.model import Earthformer
from earthformer_jax.ops.cuboid import CuboidSpec

DEVICES = 4
FRAMES, WIDTH = 3, 16
LEAST_FIELD = 3 * 4 * 4 * 16  # elements of the smallest field inside the models
MODELS = {
    # Columns are whole on no device: the field has to be split along its width.
    "height": dict(
        stem_scale=(1, 2, 2),
        enc_pattern=((CuboidSpec((1, 8, 1)),),),
        dec_cross_pattern="cross_1x1",
    ),
    # Rows are whole on no device, and four devices cannot share them equally.
    "width": dict(
        stem_scale=(1, 2, 2),
        enc_pattern=((CuboidSpec((1, 1, 8)),),),
        dec_cross_pattern="cross_1x1",
    ),
    # No axis has as many windows as there are devices; time is padded.
    "windows": dict(
        stem_scale=(1, 4, 4),
        enc_pattern=((CuboidSpec((2, 2, 2), shift=(1, 1, 1)),),),
        dec_cross_pattern="cross_2x2",
        use_dec_cross_global=True,
        separate_global_qkv=True,
    ),
}
HEIGHTS = {"height": 16, "width": 10, "windows": 16}


def gathered(text):
    """Number of elements of what each all-gather of a compiled program returns."""
    results = re.findall(r"= (.*?) all-gather(?:-start)?\(", text)
    shapes = [s for result in results for s in re.findall(r"\[([\d,]*)\]", result)]
    return [int(np.prod([int(n) for n in s.split(",") if n])) for s in shapes]


def compiled(function, devices, params, inputs):
    """The program for a number of devices, and its arguments laid out on them."""
    mesh = jax.make_mesh(
        (devices,),
        ("space",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:devices],
    )
    params = jax.device_put(params, jax.NamedSharding(mesh, jax.P()))
    height = inputs.shape[2] // 2  # of the field inside the models
    along = (None, "space") if height % devices else ("space",)
    inputs = jax.device_put(inputs, jax.NamedSharding(mesh, jax.P(None, None, *along)))
    lowered = jax.jit(function).lower(params, inputs)
    return lowered.compile({"xla_backend_optimization_level": 0}), (params, inputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_split(name):
    """Forecast and gradient, with dropout, of programs for one device and for four."""
    shape = (FRAMES, HEIGHTS[name], WIDTH, 1)
    model = Earthformer(
        shape,
        shape,
        base_units=16,
        num_heads=2,
        enc_depth=(1,),
        dec_depth=(1,),
        num_global_vectors=2,
        stem_conv_layers=1,
        **MODELS[name],
    )
    random = np.random.default_rng(0)
    inputs = random.normal(size=(1, *shape)).astype(np.float32)
    like = jax.eval_shape(model.init, jax.random.key(0), inputs)["params"]
    params = jax.tree.map(
        lambda x: (0.2 * random.normal(size=x.shape)).astype(np.float32), like
    )

    def loss(params, inputs):
        rngs = dict(dropout=jax.random.key(1))
        forecast = model.apply({"params": params}, inputs, train=True, rngs=rngs)
        return jnp.mean(jnp.square(forecast - 1)), forecast

    step = jax.value_and_grad(loss, has_aux=True)
    one, arguments = compiled(step, 1, params, inputs)
    want = jax.tree.leaves(one(*arguments))
    several, arguments = compiled(step, DEVICES, params, inputs)
    have = jax.tree.leaves(several(*arguments))
    for x, y in zip(have, want, strict=True):
        scale = max(1, np.abs(y).max())
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * scale)
    assert max(gathered(several.as_text()), default=0) < LEAST_FIELD
