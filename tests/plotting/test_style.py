import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from earthformer_jax import plotting
from earthformer_jax.plotting.style import (
    LOOKS,
    OTHER_COLOURS,
    apart,
    lead_label,
    moment_label,
    plural,
    step_of,
)


def test_a_forecast_looks_the_same_in_every_figure():
    assert plotting.look("lim") == plotting.look("lim", others=3)
    assert plotting.look("a")[1] != plotting.look("b", others=1)[1]


@pytest.mark.parametrize(
    "frame, step",
    (
        ("5 min", (5, "min")),
        ("day", (1, "day")),
        ("0.5 h", (0.5, "h")),
        ("12", (12, "frame")),
        ("", (1, "frame")),
        ("2 or 5 min", (1, "frame")),
    ),
)
def test_the_time_between_frames(frame, step):
    assert step_of(frame) == step


def test_the_time_between_frames_in_a_sentence():
    assert apart("month") == ", 1 month apart"
    assert apart("2 or 5 min") == ", 2 or 5 min apart"
    assert apart("") == ""


def test_units_have_plurals_as_words_do():
    assert plural("day") == "days" and plural("min") == "min"


def test_models_that_are_compared_have_no_colour_of_a_reference():
    assert not set(OTHER_COLOURS) & {colour for _, colour, *_ in LOOKS.values()}


@pytest.mark.parametrize(
    "frame, lead, text",
    (
        ("5 min", 3, "+15 min"),
        ("day", 1, "+1 day"),
        ("day", -2, "−2 days"),
        ("", 4, "+4 frames"),
        ("month", 0, "now"),
        ("2 or 5 min", 2, "+2 frames"),
    ),
)
def test_lead_times_read_well(frame, lead, text):
    assert lead_label(frame, lead) == text


def test_unknown_units_can_be_left_out():
    assert lead_label("", -4, short=True) == "−4"
    assert lead_label("6 h", 2, short=True) == "+12 h"


def test_save_leaves_just_the_picture(tmp_path):
    figure = Figure(figsize=(6, 3))
    figure.add_subplot().plot([1, 2])
    path = tmp_path / "figures" / "curve.png"
    plotting.save(figure, path)
    assert [p.name for p in path.parent.iterdir()] == ["curve.png"]
    assert matplotlib.image.imread(path).shape[1] > 700


@pytest.mark.parametrize(
    ("frame", "moment", "text"),
    [
        ("month", "2014-11-15T12:00", "2014-11"),
        ("day", "2014-11-15", "2014-11-15"),
        ("day", "2014-11-15T12:00", "2014-11-15 12:00 UTC"),
        ("5 min", "2014-11-15T00:00", "2014-11-15 00:00 UTC"),
        ("", "2014-11-15T12:05", "2014-11-15 12:05 UTC"),
    ],
)
def test_dates_are_as_exact_as_the_time_between_frames(frame, moment, text):
    assert moment_label(np.datetime64(moment), frame) == text
