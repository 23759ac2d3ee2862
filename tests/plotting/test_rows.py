"""Sequences of frames as rows."""

import numpy as np

from earthformer_jax import plotting
from earthformer_jax.data.dataset import Channel, Display

DISPLAY = Display((Channel("T", "K"),), "5 min")


def figure_of(**lengths):
    random = np.random.default_rng(0)
    rows = {label: random.normal(size=(n, 4, 6)) for label, n in lengths.items()}
    figure = plotting.frame_rows(
        rows, channel=DISPLAY.channels[0], display=DISPLAY, title="Samples"
    )
    return rows, [axes for axes in figure.axes if axes.images]


def test_inputs_end_before_the_first_lead():
    rows, panels = figure_of(Inputs=3, Truth=12, Sample=12)
    assert len(panels) == 3 + 2 * 6
    titles = [axes.get_title() for axes in panels]
    assert titles[:3] == ["−10 min", "−5 min", "now"]
    assert titles[3] == titles[9] == "+10 min" and titles[-1] == "+60 min"
    np.testing.assert_array_equal(panels[0].images[0].get_array(), rows["Inputs"][0])
    np.testing.assert_array_equal(panels[-1].images[0].get_array(), rows["Sample"][-1])
    assert len({axes.images[0].norm.vmax for axes in panels}) == 1


def test_frames_without_inputs_have_numbers():
    _, panels = figure_of(Truth=2, Restored=2)
    assert [axes.get_title() for axes in panels] == ["frame 1", "frame 2"] * 2
