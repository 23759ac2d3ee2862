import numpy as np

from earthformer_jax.plotting.diagrams import comparison

LEADS = np.arange(1.0, 5.0)


def curve(values):
    return values, np.stack([values - 0.1, values + 0.2], axis=-1)


def test_scores_above_and_differences_below():
    values = {"mine": curve(LEADS), "lim": curve(2 * LEADS), "other": curve(LEADS)}
    gaps = {"mine": curve(-LEADS), "other": curve(-LEADS)}
    figure = comparison(
        [("MSE", values, gaps), ("CSI", values, gaps)],
        baseline="lim",
        banded=["mine", "lim"],
        step=(5, "min"),
        title="t",
    )
    above, other, below, _ = figure.axes
    np.testing.assert_array_equal(above.lines[0].get_xdata(), 5 * LEADS)
    band = np.asarray(above.collections[1].get_paths()[0].vertices)
    assert band[:, 1].min() == 2 - 0.1 and band[:, 1].max() == 8 + 0.2
    assert len(above.collections) == 2  # `other` has none
    assert other.get_ylabel() == "CSI" and below.get_xlabel() == "Lead time (min)"
    assert below.get_ylabel() == "Minus Linear inverse model"
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["mine", "Linear inverse model", "other"]
    colours = {line.get_color() for line in above.lines}
    assert len(colours) == 3
    assert below.lines[0].get_color() == above.lines[0].get_color()
    figure.canvas.draw()


def test_without_intervals_there_are_lines_alone():
    values = LEADS[:1], np.full((1, 2), np.nan)
    figure = comparison(
        [("MSE", {"a": values, "b": values}, {"a": values})],
        baseline="b",
        banded=["a", "b"],
        step=(1, "frame"),
        title="t",
    )
    above, below = figure.axes
    assert above.lines[0].get_marker() == "o"  # one lead time is a point
    assert below.get_xlabel() == "Lead time (frames)"
    figure.canvas.draw()
