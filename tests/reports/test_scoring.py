import json

import numpy as np
import pytest

from earthformer_jax.metrics.pixel import PixelError
from earthformer_jax.reports import scoring


def source(examples=7):
    return [
        {"inputs": np.full((2, 3, 3, 1), i), "targets": np.full((2, 3, 3, 1), float(i))}
        for i in range(examples)
    ]


def test_all_forecasts_see_the_same_examples_in_the_order_of_reports():
    seen = []

    def forecast(error):
        return lambda batch: batch["targets"] + error

    def watch(batch, fields):
        seen.append(batch["targets"][batch["valid"], 0, 0, 0, 0].tolist())
        assert list(fields) == ["model", "persistence", "other"]

    found = scoring.evaluate(
        PixelError(),
        source(),
        {"other": forecast(2.0), "persistence": forecast(1.0), "model": forecast(0.0)},
        3,
        watch,
    )
    assert list(found) == ["model", "persistence", "other"]
    mse = [scores["mse"] for scores in found.values()]
    assert mse == pytest.approx([0, 1, 4], abs=1e-5)
    assert seen == [[0, 1, 2], [3, 4, 5], [6]]


def test_what_is_not_finite_becomes_null(tmp_path):
    path = tmp_path / "scores.json"
    scoring.write_json(path, {"a": [1.0, float("nan")], "b": {"c": float("inf")}})
    assert json.loads(path.read_text()) == {"a": [1.0, None], "b": {"c": None}}
    assert [p.name for p in tmp_path.iterdir()] == ["scores.json"]


def test_json_has_what_fits_on_a_line(tmp_path):
    path, long = tmp_path / "scores.json", [round(0.1 * i, 3) for i in range(40)]
    content = {"a": {"b": [0.5, [1, 2]], "c": "x"}, "long": long, "d": [{"e": long}]}
    scoring.write_json(path, content)
    assert json.loads(path.read_text()) == content
    lines = path.read_text().splitlines()
    assert lines[:2] == ["{", '  "a": {"b": [0.5, [1, 2]], "c": "x"},']
    assert lines[2].startswith('  "long": [0.0, 0.1,') and lines[2].endswith("],")
    assert lines[3:5] == ['  "d": [', "    {"] and len(lines) == 9
