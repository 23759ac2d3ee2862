import numpy as np

from earthformer_jax import plotting


def test_skill_curves_show_every_forecast():
    curves = {"lim": [0.9, 0.5, -0.1], "mine": [0.8, 0.7, 0.6], "model": [1, 0.9, 0.8]}
    axes = plotting.skill_curves(curves, title="Skill", index="Niño3.4").axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [
        "Model (mean 0.90)",
        "Linear inverse model (mean 0.43)",
        "Mine (mean 0.70)",
    ]
    assert axes.get_ylim()[0] < -0.1 and axes.get_ylim()[1] == 1
    assert "months" in axes.get_xlabel() and "Niño3.4" in axes.get_ylabel()


def lead_axes(step=(5.0, "min"), **curves):
    panels = {"Mean squared error": curves, "SSIM": {"model": [0.9, 0.8, 0.7]}}
    return plotting.lead_curves(panels, step=step, title="Skill").axes


def test_lead_curves_have_a_panel_per_score_and_start_at_the_first_frame():
    left, right = lead_axes(persistence=[1.0, 2.0, 3.0], model=[0.5, 1.0, 1.5])
    assert left.get_ylabel() == "Mean squared error" and right.get_ylabel() == "SSIM"
    assert left.get_xlabel() == "Lead time (min)"
    model, persistence = left.lines
    np.testing.assert_array_equal(model.get_xdata(), [5, 10, 15])
    np.testing.assert_array_equal(persistence.get_ydata(), [1, 2, 3])
    low, high = left.get_ylim()
    assert low == 0 and high > 3


def test_leads_without_a_score_are_left_out():
    left, _ = lead_axes(model=[0.5, float("nan"), 1.5])
    np.testing.assert_array_equal(left.lines[0].get_xdata(), [5, 15])


def test_scores_that_are_all_unknown_give_empty_axes():
    left, _ = lead_axes(step=(1.0, "frame"), model=[float("nan")] * 3)
    assert left.get_ylim()[0] == 0 < left.get_ylim()[1]
    assert left.get_xlabel() == "Lead time (frames)"
