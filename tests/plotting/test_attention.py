import numpy as np
import pytest

from earthformer_jax import plotting

PLANE = (6, 10)


def row(label, frames, query, cell=(2, 4), grid=(3, 3)):
    weights = np.random.default_rng(0).dirichlet(np.ones(frames * grid[0] * grid[1]))
    names = [f"frame {k}" for k in range(frames)]
    return plotting.AttentionRow(
        label, weights.reshape(frames, *grid), names, cell, query
    )


def panels(rows, **options):
    figure = plotting.attention_maps(rows, plane=PLANE, **options)
    figure.canvas.draw()
    return [a for a in figure.axes if a.get_label() != "<colorbar>"]


def test_a_row_per_layer_and_a_map_per_frame():
    shown = panels([row("encoder", 3, (2, 1, 1)), row("decoder", 2, (None, 0, 0))])
    titles = [panel.get_title() for panel in shown]
    assert titles == ["frame 0", "frame 1", "frame 2", "frame 0", "frame 1", ""]
    assert [bool(panel.images) for panel in shown] == [True] * 5 + [False]


def test_cells_cover_their_pixels_and_the_query_is_outlined():
    one = row("encoder", 2, (1, 2, 1))
    shown = panels([one], unknown=np.eye(*PLANE, dtype=bool))
    outlines = []
    for k, panel in enumerate(shown):
        weights, land = panel.images
        np.testing.assert_allclose(weights.get_array(), 100 * one.weights[k])
        assert weights.get_extent() == [0, 12, 6, 0]  # two pixels beyond the frame
        np.testing.assert_array_equal(~land.get_array().mask, np.eye(*PLANE))
        assert (panel.get_xlim(), panel.get_ylim()) == ((0, 10), (6, 0))
        (outline,) = panel.patches
        assert outline.get_bbox().bounds == (4, 4, 4, 2)
        outlines.append(outline.get_linestyle())
    assert outlines == [":", "-"]


def test_the_south_is_at_the_bottom():
    (panel,) = panels([row("encoder", 1, (0, 0, 0))], south_first=True)
    assert panel.get_ylim() == (0, 6)


def test_refusals():
    with pytest.raises(ValueError, match="rows is empty"):
        plotting.attention_maps([], plane=PLANE)
    wrong = plotting.AttentionRow("x", np.ones((2, 3, 3)), ["a"], (1, 1), (0, 0, 0))
    with pytest.raises(ValueError, match="x: 1 names for 2 frames"):
        plotting.attention_maps([wrong], plane=PLANE)
