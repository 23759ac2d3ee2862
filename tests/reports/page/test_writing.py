import types

import numpy as np
import pytest
from PIL import Image

from earthformer_jax.data.dataset import Channel, Data, Display
from earthformer_jax.reports.page import figures, markup, tidy, writing
from earthformer_jax.reports.page.about import About, commands
from tests.reports.page.checking import faults, images_of, text_of

EVIL = '<script>alert("1 & 2")</script>\x00\udc80'
SCORES = {
    "data": {"name": EVIL, "description": EVIL, "mse_units": "K^2", "leads": [1, 2]},
    "forecasts": {
        "model": {"mse": 3.0, "csi_16": 0.5, "mse_by_lead": [1.0, None]},
        EVIL: {"mse": 1.0, "csi_16": 0.25, "mse_by_lead": [1.0, 2.0]},
    },
}
EXAMPLE = {"inputs": np.zeros((4, 5, 6, 1)), "targets": np.zeros((2, 5, 6, 1))}


def about(**more):
    fields = {"model": EVIL, "parameters": 12345, "config": {"seed": 7, "data": {}}}
    fields |= {"changed": [], "workdir": "runs/a b", "step": 12, "complete": True}
    return About(**fields | {"device": "cpu"} | more)


def data_of(channels):
    return Data(
        name=EVIL,
        description=EVIL,
        train=[EXAMPLE] * 3,
        validation=[],
        test=[EXAMPLE] * 2,
        loss_weights=np.ones((1, 1, 1, 1)),
        display=Display(channels, "5 min"),
    )


def written(tmp_path, scores=SCORES, **more):
    data = data_of((Channel(EVIL, "K"),))
    picture = tmp_path / "skill.png"
    Image.new("RGB", (900, 300), "white").save(picture)
    path = tmp_path / "report.html"
    rows = tidy.rows(scores)
    writing.write(path, scores, rows, data, about(**more), [picture])
    return path.read_text(encoding="utf-8")


def test_the_page_is_complete_in_itself_and_escapes_what_it_is_given(tmp_path):
    page = written(tmp_path)
    assert faults(page) == []
    assert "<script" not in page
    text = text_of(page)
    assert 'alert("1 & 2")' in text  # as it was written, but as text
    for expected in (
        "12,345 parameters",
        "checkpoint of step 12",
        "4 frames in, 2 frames out, 5 min apart",
        "5 × 6 cells",
        "3 times as large",
        "+10 min",
        "Scores against lead time.",
        "--mode=evaluate",
        "7 of the model",
    ):
        assert expected in text, expected
    (image,) = images_of(page)
    assert image["alt"] == "Scores against lead time."
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "skill.png"]


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ("<p><b></p></b>", "closes another"),
        ("<p>", "not closed"),
        ('<img src="https://x.org/a.png" alt="a">', "elsewhere"),
        ('<img src="data:image/png;base64,AAAA" alt="a">', "identify"),
        ("<script></script>", "script"),
        ("<style>a { b: url(x) }</style>", "url"),
    ],
)
def test_the_check_of_a_page_finds_faults(page, fault):
    assert any(fault in found for found in faults(page))


def test_channels_stand_side_by_side_and_restored_frames_are_called_so(tmp_path):
    own = {"mse": 3.0, "rmse_T": 1.5, "rmse_p": 7.5}
    scores = SCORES | {"forecasts": {"model": own}}
    rows = tidy.rows(scores, channels={"T": "K", "p": "hPa"})
    channels = Channel("T", "K"), Channel("p", "hPa")
    data = data_of(channels)
    path = tmp_path / "report-later.html"
    writing.write(path, scores, rows, data, about(), [], restored=True)
    page = path.read_text()
    assert faults(page) == []
    text = text_of(page)
    for expected in (
        "RMSE of T (K)RMSE of p (hPa)",
        "What was restored",
        "2 frames, 5 min apart, restored from",
        "scores-later.csv",
        "has no figures",
    ):
        assert expected in text, expected


def test_without_references_there_is_no_comparison(tmp_path):
    alone = SCORES | {"forecasts": {"model": SCORES["forecasts"]["model"]}}
    assert "In short" not in written(tmp_path, alone)


def test_an_unfinished_training_is_named(tmp_path):
    assert "training was not complete" in written(tmp_path, complete=False)


def test_commands_quote_paths_and_name_what_differs_from_the_training():
    config = {"data": {"path": "later data.nc", "targets": ["a", "b"]}}
    made = commands(about(config=config, changed=["data.path", "data.targets"]))
    assert made["Evaluate again"] == (
        "python -m earthformer_jax.main '--workdir=runs/a b' --mode=evaluate "
        "'--config.data.path=later data.nc' "
        """'--config.data.targets=('"'"'a'"'"', '"'"'b'"'"')'"""
    )
    assert "'--config=runs/a b/config.json'" in made["Train again"]


def test_only_new_figures_are_shown_and_in_their_order(tmp_path):
    for name in ("old.png", "skill.png", "b.txt"):
        (tmp_path / name).write_text("1")
    before = figures.seen(tmp_path)
    for name in (
        "skill.png",
        "forecast_T.png",
        "forecast.gif",
        "forecast.png",
        "x.png",
    ):
        (tmp_path / f"new-{name}").write_text("22")
        (tmp_path / f"new-{name}").replace(tmp_path / name)
    new = figures.in_order(figures.drawn_since(tmp_path, before))
    assert [p.name for p in new] == [
        "forecast.png",
        "forecast_T.png",
        "forecast.gif",
        "skill.png",
        "x.png",
    ]
    assert figures.caption_of(new[1]).startswith("T: one test example")
    assert figures.caption_of(new[4]) == "X."
    assert figures.seen(tmp_path / "none") == {}


def test_text_between_elements_is_kept():
    made = markup.element("p", "a", markup.element("b", "c"), "d", "e")
    assert "<p>a<b>c</b>de</p>" in markup.document("t", made)


@pytest.mark.parametrize(
    ("minutes", "text"),
    [
        (60, "2010-08-26 00:00 UTC to 2010-08-26 01:00 UTC (inputs included)"),
        (14400, "2010-08-26 to 2010-09-05 (inputs included)"),
    ],
)
def test_short_periods_have_times_of_day(minutes, text):
    start = np.datetime64("2010-08-26", "m").astype(int)
    test = [{"time": np.array([start, start + minutes])}]
    data = types.SimpleNamespace(spans={"test": None}, test=test)
    assert writing._period(data, "test") == text  # pyright: ignore[reportArgumentType]
