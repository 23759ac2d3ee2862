import numpy as np
import pytest

from earthformer_jax.plotting.diagrams import performance, spectra

PAIRS = [(0.8, 0.9), (0.5, 0.6), (np.nan, 0.1)]


def test_performance_has_a_marker_for_each_threshold_that_is_known():
    figure = performance(
        {"model": PAIRS, "mine": PAIRS[::-1]}, thresholds=("16", "74", "219"), title="t"
    )
    (axes,) = figure.axes
    marks = [line for line in axes.lines if line.get_marker() not in ("None", None)]
    assert [tuple(np.ravel(m.get_xydata())) for m in marks] == [
        (0.8, 0.9),
        (0.5, 0.6),
        (0.5, 0.6),
        (0.8, 0.9),
    ]
    # A threshold has the same marker in every forecast.
    assert marks[0].get_marker() == "o" and marks[3].get_marker() == "D"
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"Model", "Mine", "16", "74", "219", "CSI", "frequency bias"} <= set(texts)
    figure.canvas.draw()


def test_lines_of_csi_and_bias_are_where_their_formulas_say():
    figure = performance({}, thresholds=(), title="")
    curves = [x for x in figure.axes[0].lines if x.get_linestyle() == "-"]
    rays = [x for x in figure.axes[0].lines if x.get_linestyle() == "--"]
    x, y = curves[4].get_xydata()[-100:].T  # CSI 0.5
    np.testing.assert_allclose(1 / (1 / x + 1 / y - 1), 0.5)
    slopes = [ray.get_xydata()[1, 1] / ray.get_xydata()[1, 0] for ray in rays]
    np.testing.assert_allclose(slopes, [0.3, 0.5, 0.8, 1, 1.25, 2, 3])


def test_performance_refuses_other_numbers_of_points():
    with pytest.raises(ValueError, match=r"points\['a'\] has 3 pairs"):
        performance({"a": PAIRS}, thresholds=("16",), title="")


def test_spectra_and_their_ratio_to_the_truth():
    truth = np.array([8.0, 4.0, 0.0, 1.0])
    figure = spectra(
        {"model": truth / 2, "other": [np.nan, 0, 1, 1]},
        truth,
        wavelengths=[16, 8, 4, 2],
        units="mm²",
        title="t",
    )
    power, share = figure.axes
    np.testing.assert_allclose(
        share.lines[0].get_xydata(), [[16, 0.5], [8, 0.5], [2, 0.5]]
    )
    np.testing.assert_allclose(power.lines[1].get_xydata(), [[2, 1]])
    assert power.get_xlim()[0] > power.get_xlim()[1]  # long waves first
    assert [x.get_text() for x in power.get_legend().get_texts()][-1] == "Truth"
    figure.canvas.draw()


def test_spectra_of_nothing_can_be_drawn():
    nothing = spectra(
        {"model": [np.nan] * 2}, [0.0, 0.0], wavelengths=[4, 2], units="", title=""
    )
    nothing.canvas.draw()
