"""The paper's options: complete, and those of the project's configs."""

import pytest

from earthformer_jax import models
from earthformer_jax.models import paper
from earthformer_jax.run import config_files

FILES = {
    "moving_mnist": "mnist",
    "nbody_mnist": "mnist",
    "sevir": "sevir",
    "enso": "enso",
}


@pytest.mark.parametrize("file", FILES)
def test_earthformer_is_that_of_the_configs(file):
    inputs, targets = paper.SHAPES[FILES[file]]
    config = config_files.load(file)
    lengths = (config.data.in_len, config.data.out_len)
    assert lengths == (inputs[0], targets[0])

    def make(**options):
        return models.create_model(input_shape=inputs, target_shape=targets, **options)

    config.model.scan_blocks = False  # how it runs, not what it is
    options = paper.PAPER_OPTIONS["earthformer"].get(FILES[file], {})
    assert make(**config.model) == make(name="earthformer", **options)
    plain = paper.PAPER_OPTIONS["earthformer, no global vectors"][FILES[file]]
    config.model.update(num_global_vectors=0, use_global_self_attn=False)
    assert make(**config.model) == make(**plain)


def test_tables_speak_of_the_same_models_and_data():
    assert set(paper.DATA) == set(paper.SHAPES)
    for by_data in (*paper.PAPER_OPTIONS.values(), *paper.PAPER_COSTS.values()):
        assert set(by_data) <= set(paper.DATA)
    for costs in paper.PAPER_COSTS.values():
        assert set(costs) == set(paper.DATA)
    for labels in (paper.PAPER_COSTS, paper.FLOPS_PER_MULTIPLY_ADD, paper.REMARKS):
        assert set(labels) <= set(paper.PAPER_OPTIONS)
