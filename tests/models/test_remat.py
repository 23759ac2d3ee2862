"""What is computed again in the backward pass: what is kept, names, and values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax import models
from earthformer_jax.models import remat as remat_lib
from earthformer_jax.models.autoregressive.model import EarthformerAR
from earthformer_jax.profiling.multiply_adds import residual_bytes
from tests.models.test_forward_mode import SMALLEST

SLOW = ("earthformer", "rainformer", "vq_vae")
NAMES = ["unet", "predrnn", *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)]


def made(name, remat):
    """`(params, inputs) -> (sum, None)`, and shapes of its arguments."""
    shape, options = SMALLEST[name]
    model = models.create_model(name, shape, shape, **options | dict(remat=remat))
    inputs = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    variables = dict(jax.eval_shape(model.init, jax.random.key(0), inputs))
    params = variables.pop("params")
    rest = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), variables)

    def loss(params, inputs):
        forecast = model.apply({"params": params, **rest}, inputs)
        return jnp.sum(jnp.sin(forecast)), None

    return loss, params, inputs


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept(name):
    none, dots, blocks = (
        residual_bytes(*made(name, remat)) for remat in ("none", "dots", "blocks")
    )
    assert blocks < dots < none


@pytest.mark.parametrize("name", ["unet", "conv_lstm"])
def test_offloading_is_to_the_host(name):
    loss, *arguments = made(name, "offload")
    program = str(jax.make_jaxpr(jax.grad(loss, has_aux=True))(*arguments))
    assert "host" in program


@pytest.mark.slow
def test_values():
    """The same for all names, in one program; on a CPU offloading compiles too."""
    losses = [made("unet", remat)[0] for remat in remat_lib.NAMES]
    _, *like = made("unet", "none")
    random = np.random.default_rng(0)
    arguments = jax.tree.map(
        lambda x: jnp.asarray(random.normal(size=x.shape), jnp.float32), tuple(like)
    )

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def gradients(*arguments):
        return [jax.grad(f, has_aux=True)(*arguments)[0] for f in losses]

    want, *others = gradients(*arguments)
    for have in others:
        jax.tree.map(
            lambda h, w: np.testing.assert_allclose(h, w, rtol=1e-4, atol=1e-4),
            have,
            want,
        )


@pytest.mark.parametrize(
    ("value", "name"),
    [(False, "none"), (0, "none"), (1, "feed_forward"), (2, "blocks"), ("2", "blocks")]
    + [(True, "blocks"), ("true", "blocks"), ("False", "none"), ("dots", "dots")],
)
def test_values_of_older_configs(value, name):
    assert remat_lib.name_of(value) == name
    shape, options = SMALLEST["unet"]
    models.create_model("unet", shape, shape, **options, remat=value)


@pytest.mark.slow
def test_feed_forward_layers_alone():
    kept = {
        remat: residual_bytes(*made("earthformer", remat))
        for remat in ("none", "feed_forward", "blocks")
    }
    assert kept["blocks"] < kept["feed_forward"] < kept["none"]


@pytest.mark.parametrize("value", ["everything", 3, -1, 0.5, None])
def test_unknown_names(value):
    shape, options = SMALLEST["unet"]
    with pytest.raises(ValueError, match="remat=.*expected one of 'none', 'dots'"):
        models.create_model("unet", shape, shape, **options, remat=value)


def test_every_model_that_learns_has_it():
    without = {n for n in models.names() if "remat" not in models.fields(n)}
    assert without == {"persistence"}
    assert EarthformerAR.__dataclass_fields__["remat"].default == "none"
