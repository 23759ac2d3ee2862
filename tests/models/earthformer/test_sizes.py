"""The sizes of attention that are known before tracing are those that tracing meets."""

import numpy as np
import pytest

from earthformer_jax import models
from earthformer_jax.models.earthformer.sizes import attention_sizes
from earthformer_jax.ops import attention
from earthformer_jax.training import state

INPUTS, TARGETS = (5, 24, 40, 1), (3, 24, 40, 1)


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(enc_pattern="divided_st", dec_self_pattern="full"),
        dict(enc_pattern="video_swin_2x8", dec_cross_pattern="cross_2x2_heter"),
    ],
)
def test_they_are_those_of_tracing(monkeypatch, options):
    met = set()
    index = attention.relative_position_index

    def note(size, memory_size, reach):
        met.add((int(np.prod(size)), int(np.prod(memory_size))))
        return index(size, memory_size, reach)

    monkeypatch.setattr(attention, "relative_position_index", note)
    small = dict(base_units=16, num_heads=2, enc_depth=(1, 1), dec_depth=(2, 2))
    model = models.create_model("earthformer", INPUTS, TARGETS, **small, **options)
    state.abstract_variables(model, INPUTS)
    assert {(size.queries, size.keys) for size in attention_sizes(model)} == met


def test_bytes_of_the_scores():
    model = models.create_model(
        "earthformer", INPUTS, TARGETS, enc_pattern="full", num_heads=2
    )
    largest = max(attention_sizes(model), key=lambda size: size.queries)
    positions = 5 * 12 * 20  # after the stem
    assert (largest.option, largest.queries) == ("enc_pattern", positions)
    assert largest.score_bytes(3) == 3 * 2 * positions**2 * 4
    assert largest.index_bytes == 3 * positions**2 * 4
