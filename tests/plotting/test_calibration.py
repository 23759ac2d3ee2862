"""The panels of probabilities: what is drawn in which, and the words beside it."""

import numpy as np

from earthformer_jax import plotting
from earthformer_jax.metrics.ensembles.calibration import roc

SAID, CAME = np.array([8.0, 4, 2, 2]), np.array([1.0, 1, 1, 2])  # 0 to 3 of 3 members


def scores(events):
    """Those of three members and two leads that the figure looks at."""
    curve = roc(SAID, CAME)
    event = dict(
        probability=[0, 1 / 3, 2 / 3, 1],
        frequency=(CAME / SAID).tolist(),
        share=(SAID / SAID.sum()).tolist(),
        hit_rate=curve["hit_rate"].tolist(),
        false_alarm_rate=curve["false_alarm_rate"].tolist(),
        roc_area=float(curve["area"]),
    )
    by_lead = {f"{name}_by_lead": [0.5, 1.0] for name in ("crps", "rmse", "spread")}
    histogram = [0.25, 0.25, 0.25, 0.25]
    return {
        **by_lead,
        "rank_histogram": histogram,
        "events": dict.fromkeys(events, event),
    }


def axes_of(*events, others=("persistence",)):
    forecasts = {name: scores(events) for name in ("model", *others)}
    return plotting.calibration(
        forecasts, units="K", step=(1, "month"), title="Probabilities"
    ).axes


def test_three_panels_without_events():
    assert len(axes_of()) == 3


def test_events_have_reliability_and_roc_and_a_legend_for_both():
    *_, reliability, curves, legend = axes_of(">=16")
    assert reliability.get_xlabel() == "Forecast probability"
    np.testing.assert_allclose(reliability.lines[0].get_ydata(), CAME / SAID)
    assert curves.get_ylabel().startswith("Hit rate")
    x, y = curves.lines[0].get_data()
    np.testing.assert_allclose(y, [0, 0.4, 0.6, 0.8, 1])  # warned by 4, 3, ... 0
    np.testing.assert_allclose(x, [0, 0, 1 / 11, 4 / 11, 1])
    texts = [text.get_text() for text in legend.get_legend().get_texts()]
    assert texts == ["Model, ≥16: area 0.809", "Persistence, ≥16: area 0.809"]


def test_at_most_four_events_and_two_forecasts():
    events = [f">={n}" for n in range(9)]
    curves = axes_of(*events, others=("model_dressed", "lim", "persistence"))[4]
    assert len(curves.lines) == 2 * 3 + 1  # every third event, and the diagonal


def test_an_event_that_is_never_seen_has_no_curve():
    forecasts = {"model": scores([">=16"])}
    nothing = dict.fromkeys(("hit_rate", "false_alarm_rate"), [float("nan")] * 5)
    forecasts["model"]["events"][">=16"] |= nothing | {"roc_area": float("nan")}
    figure = plotting.calibration(forecasts, units="", step=(1, "day"), title="")
    (text,) = figure.axes[5].get_legend().get_texts()
    assert text.get_text() == "Model, ≥16: seen never, or always"
    assert not np.isfinite(figure.axes[4].lines[0].get_xydata()).any()
