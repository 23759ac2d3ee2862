"""Types of numbers are stated in one place, and followed everywhere."""

import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from earthformer_jax.settings import ConfigError
from earthformer_jax.training.precision import policy
from earthformer_jax.training.settings import from_config


def config(**sections):
    return ml_collections.ConfigDict({"model": {"name": "unet"}} | sections)


def test_one_line_for_readers():
    assert policy.PrecisionSettings().describe() == (
        "float32 arithmetic, float32 parameters, float32 sums"
    )
    other = policy.PrecisionSettings("bfloat16", "bfloat16", "highest")
    assert other.describe() == (
        "bfloat16 arithmetic, bfloat16 parameters, float32 sums, highest products"
    )


def test_only_float16_scales_the_loss():
    assert policy.PrecisionSettings("float16").first_scale == 2**15
    assert policy.PrecisionSettings("bfloat16").first_scale is None
    with pytest.raises(ConfigError) as error:
        from_config({"precision": {"compute": "bfloat16", "loss_scale": 8.0}})
    assert str(error.value) == (
        "config.precision.loss_scale=8.0 is not an option of "
        "config.precision.compute='bfloat16'; expected the default, 32768.0"
    )


class TestMoveFromModel:
    @pytest.mark.parametrize(
        ("value", "name"),
        [
            ("bfloat16", "bfloat16"),
            (jnp.bfloat16, "bfloat16"),
            ("", "float32"),
            (None, "float32"),
            (np.float32, "float32"),
            ("float33", "float33"),
        ],
    )
    def test_types_of_earlier_configs(self, value, name):
        c = config(model={"name": "unet", "dtype": value, "param_dtype": "float32"})
        policy.move_from_model(c)
        assert c.to_dict() == {
            "model": {"name": "unet"},
            "precision": {"compute": name, "params": "float32"},
        }

    def test_nothing_to_move(self):
        c = config()
        policy.move_from_model(c)
        assert c.to_dict() == {"model": {"name": "unet"}}

    def test_what_contradicts(self):
        c = config(model={"dtype": "bfloat16"}, precision={"compute": "float16"})
        with pytest.raises(ConfigError) as error:
            policy.move_from_model(c)
        assert str(error.value) == (
            "config.model.dtype='bfloat16' and config.precision.compute='float16': "
            "leave the first out"
        )

    def test_the_new_name(self):
        assert policy.successor("model.dtype") == "precision.compute"
        assert policy.successor("model.param_dtype") == "precision.params"
        assert policy.successor("model.depth") == ""


def test_options_of_a_model():
    assert policy.model_options(config()) == {"name": "unet"}
    types_of = {"compute": "bfloat16", "params": "float32"}
    assert policy.model_options(config(precision=types_of)) == {
        "name": "unet",
        "dtype": "bfloat16",
    }


class Owner:
    """Has a config, and multiplies."""

    def __init__(self, matmul):
        self.config = config(precision={"matmul": matmul})

    @policy.with_products
    def multiplied(self, x, *, traced=jax.make_jaxpr):
        """A product."""
        return str(traced(lambda x: x @ x)(x))


@pytest.mark.parametrize(
    ("matmul", "words"), [("highest", "HIGHEST"), ("high", "HIGH"), ("default", None)]
)
def test_products(matmul, words):
    owner = Owner(matmul)
    text = owner.multiplied(jnp.ones((2, 2)))
    if words is None:
        assert "HIGH" not in text
        with jax.default_matmul_precision("highest"):  # of the calling program
            assert "HIGHEST" in owner.multiplied(jnp.ones((2, 2)))
    else:
        assert f"Precision.{words}" in text
    assert owner.multiplied.__doc__ == "A product."
    assert jax.config.jax_default_matmul_precision is None
    assert isinstance(owner.multiplied, types.MethodType)
