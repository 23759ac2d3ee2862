"""What is computed again in the backward pass: what is kept, names, and values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from earthformer_jax import models
from earthformer_jax.models import remat as remat_lib
from earthformer_jax.models.autoregressive.model import EarthformerAR
from earthformer_jax.profiling.multiply_adds import residual_bytes
from tests.models.test_forward_mode import SMALLEST
from tests.models.test_shard_map import traced_gradient

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
    """Gradients and batch statistics are the same for all names, in one program."""
    shape, options = SMALLEST["unet"]
    random = np.random.default_rng(0)
    inputs = jnp.asarray(random.normal(size=(2, *shape)), jnp.float32)
    made = [
        models.create_model("unet", shape, shape, **options, remat=remat)
        for remat in remat_lib.NAMES
    ]
    variables = dict(jax.jit(made[0].init)(jax.random.key(0), inputs))
    params = variables.pop("params")

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def gradients(params, inputs):
        def loss(model, params, inputs):
            forecast, changed = model.apply(
                {"params": params, **variables},
                inputs,
                train=True,
                mutable=["batch_stats"],
            )
            return jnp.sum(jnp.sin(forecast)), changed

        take = functools.partial(jax.grad, argnums=(1, 2), has_aux=True)
        return [take(loss)(model, params, inputs) for model in made]

    want, *others = gradients(params, inputs)
    for have in others:
        assert_close(have, want)


class Block(nn.Module):
    """Cheap functions of one product."""

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.Dense(8, use_bias=False)(x)
        for _ in range(4):
            x = jnp.tanh(jnp.sin(x) * x)
        return nn.Dropout(0.5, deterministic=not train)(x)


class Blocks(nn.Module):
    """Some of them, called as models call their blocks."""

    remat: str

    @nn.compact
    def __call__(self, x):
        for _ in range(4):
            x = remat_lib.call_block(Block(), x, remat=self.remat, train=True)
        return jnp.sum(x**2)


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_the_compiler_does_not_keep_it_after_all():
    x, planned, found = jnp.linspace(-1, 1, 2**15).reshape(4, -1, 8), {}, {}
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    params = Blocks("none").init(rngs, x)
    for remat in ("none", "blocks"):

        def loss(params, x, model=Blocks(remat)):  # noqa: B008
            return model.apply(params, x, rngs=rngs)

        program = jax.jit(jax.value_and_grad(loss)).lower(params, x).compile()
        planned[remat] = program.memory_analysis().temp_size_in_bytes
        found[remat] = program(params, x)
    alone = jax.jit(loss)(params, x)  # without a gradient the masks are the same
    np.testing.assert_allclose(alone, found["blocks"][0], rtol=1e-5)
    assert planned["blocks"] < planned["none"] / 1.5
    assert_close(found["blocks"], found["none"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "earthformer"])
def test_inside_shard_map(name):
    _, (loss, _) = traced_gradient(name, remat="blocks")
    assert loss.shape == ()


def test_blocks_with_noise():
    """Their methods use arrays that the blocks are not called with."""
    shape, options = SMALLEST["unet"]
    options = options | dict(remat="blocks", noise=2)
    model = models.create_model("unet", shape, shape, **options)
    inputs = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), inputs)

    def loss(params, rest, inputs):
        out, _ = model.apply(
            {**rest, "params": params},
            inputs,
            train=True,
            rngs={"sampling": jax.random.key(0)},
            mutable=["batch_stats"],
        )
        return jnp.sum(out)

    params = variables["params"]
    rest = {k: v for k, v in variables.items() if k != "params"}
    gradient = jax.eval_shape(jax.grad(loss), params, rest, inputs)
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, params)


def assert_close(found, expected):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4),
        found,
        expected,
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
