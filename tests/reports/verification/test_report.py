"""What an evaluation leaves for intervals and comparisons."""

import json
import os

import numpy as np
import pytest

from earthformer_jax import plotting
from earthformer_jax.reports import ModelFunctions, Settings, frames
from earthformer_jax.reports.page import tidy
from earthformer_jax.reports.verification import archive
from tests.reports.verification.fields import TASK, data, half


@pytest.fixture
def score(monkeypatch, tmp_path):
    """Scores a model without drawing figures."""
    monkeypatch.setattr(plotting, "save", lambda *_, **__: None)
    monkeypatch.setattr(frames, "draw", lambda *_, **__: None)

    def scored(count, forecast=half, label=""):
        settings = Settings(4, 2, label)
        return frames.score(
            TASK, data(count), ModelFunctions(forecast), tmp_path, settings
        )

    return scored


def test_sums_and_intervals(score, tmp_path, capsys):
    scores = score(6)
    assert sorted(os.listdir(tmp_path)) == ["scores.json", "sums.nc"]
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["data"] == scores["data"]
    assert list(written["forecasts"]) == ["model", "persistence"]
    sums = archive.read(tmp_path / "sums.nc")
    assert list(sums.values) == ["model", "persistence"]
    assert scores["data"]["intervals"]["examples_sha256"] == sums.examples.checksum
    low, high = scores["forecasts"]["model"]["intervals"]["mse"]
    assert low < scores["forecasts"]["model"]["mse"] < high
    out = capsys.readouterr().out
    assert "Model, with 90% intervals from 6 blocks (an example each): mse" in out
    assert "intervals" not in out.splitlines()[2]  # no column of the table


def test_other_data_have_a_label(score, tmp_path):
    score(6)
    before = (tmp_path / "sums.nc").read_bytes()
    score(5, label="later")
    assert (tmp_path / "sums.nc").read_bytes() == before
    assert archive.read(tmp_path / "sums-later.nc").examples.number == 5


def test_one_example(score, tmp_path, capsys):
    scores = score(1)
    assert scores["forecasts"]["model"]["intervals"]["mse"] != [0, 0]
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["forecasts"]["model"]["intervals"]["mse"] == [None, None]
    assert "No intervals: 1 test example is 1 block" in capsys.readouterr().out


def test_a_model_that_gives_no_numbers(score, tmp_path):
    score(6, lambda batch: half(batch) * np.nan)
    written = json.loads((tmp_path / "scores.json").read_text())
    model, persistence = written["forecasts"].values()
    assert model["verification"]["mse"] is None
    assert model["intervals"]["mse"] == [None, None]
    assert None not in persistence["intervals"]["mse"]


def test_the_tidy_table_has_the_numbers_and_their_intervals(score, tmp_path):
    scores = score(6)
    rows = tidy.rows(scores, archive.read(tmp_path / "sums.nc"))
    (row,) = [
        row
        for row in rows
        if (row.forecast, row.score, row.threshold, row.scale)
        == ("model", "ets", "74", "")
        and row.lead is None
    ]
    assert row.low < row.value < row.high
    errors = [r for r in rows if r.score == "mse" and r.forecast == "model"]
    assert {row.lead for row in errors} == {None, 1, 2, 3}
    assert all(row.low < row.value < row.high for row in errors)
