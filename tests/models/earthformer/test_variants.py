"""Parameter counts of the variants: the paper's, and those of released checkpoints."""

import jax
import jax.numpy as jnp
import pytest

from earthformer_jax import models
from earthformer_jax.models import paper
from earthformer_jax.models.earthformer.variants import VARIANTS

# Trained numbers; tests/interop/test_official.py counts the official options.
COUNTS = {
    "nbody_released": ("mnist", 6_702_109),
    "enso_released": ("enso", 1_394_325),
    "sevir_released": ("sevir", 8_659_677),
    "sevir_lr": ("sevir_lr", 1_505_069),
}
SHAPES = paper.SHAPES | {"sevir_lr": ((7, 128, 128, 1), (6, 128, 128, 1))}


def count(variant, data):
    inputs, targets = SHAPES[data]
    model = models.create_model("earthformer", inputs, targets, **VARIANTS[variant])
    made = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *inputs)))
    return sum(x.size for x in jax.tree.leaves(made["params"]))


@pytest.mark.slow
@pytest.mark.parametrize("data", paper.DATA)
@pytest.mark.parametrize(
    ("ending", "row"),
    [("", "earthformer"), ("_no_global", "earthformer, no global vectors")],
)
def test_parameters_are_those_of_the_paper(data, ending, row):
    millions = paper.PAPER_COSTS[row][data][0]
    assert round(count(data + ending, data) / 1e6, 1) == millions


@pytest.mark.parametrize("variant", COUNTS)
def test_parameters_are_those_of_the_released_models(variant):
    data, want = COUNTS[variant]
    assert count(variant, data) == want


def test_variants_say_only_what_differs():
    defaults = {name: f.default for name, f in models.fields("earthformer").items()}
    for name, options in VARIANTS.items():
        same = [key for key, value in options.items() if defaults[key] == value]
        assert not same, f"{name} repeats the defaults of {same}"
