"""Radar codes, and how a model sees them."""

import numpy as np
import pytest

from earthformer_jax.data.sevir.windows import (
    NORMALIZATIONS,
    block_maximum,
    code_table,
    vil_kg_per_m2,
)


def test_vil():
    """The pieces of the SEVIR tutorial, by hand."""
    assert vil_kg_per_m2(0) == vil_kg_per_m2(5) == 0
    assert vil_kg_per_m2(6) == pytest.approx(4 / 90.66)
    assert vil_kg_per_m2(18) == pytest.approx(0.17648, abs=1e-5)
    assert vil_kg_per_m2(19) == pytest.approx(0.18856, abs=1e-5)
    assert vil_kg_per_m2(254) == pytest.approx(79.261, abs=1e-3)
    assert np.isnan(vil_kg_per_m2(255))
    assert np.all(np.diff(vil_kg_per_m2(np.arange(5, 255))) > 0)


def test_normalizations():
    codes = np.arange(255)
    np.testing.assert_allclose(
        code_table(NORMALIZATIONS["01"])[:255], codes / 255, rtol=1e-6
    )
    np.testing.assert_allclose(
        code_table(NORMALIZATIONS["sevir"])[:255], (codes - 33.44) / 47.54, rtol=1e-5
    )
    for normalization in NORMALIZATIONS.values():
        table = code_table(normalization)
        assert table[255] == table[0]  # missing is read as no rain
        back = table * normalization.scale + normalization.offset
        np.testing.assert_array_equal(np.rint(back[:255]), codes)


def test_block_maximum():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (2, 6, 9), np.uint8)
    codes[rng.random(codes.shape) < 0.6] = 255
    codes[0, 3:, :3] = 255
    blocks = block_maximum(codes, 3)
    assert blocks[0, 1, 0] == 255
    for t, i, j in np.ndindex(blocks.shape):
        block = codes[t, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3]
        there = block[block < 255]
        assert blocks[t, i, j] == (there.max() if there.size else 255)
    assert block_maximum(codes, 1) is codes
