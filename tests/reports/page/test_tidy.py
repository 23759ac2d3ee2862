import csv
import io
import math

import numpy as np

from earthformer_jax.reports.page import tidy
from earthformer_jax.reports.verification import skill
from earthformer_jax.reports.verification.skill import Sampled

RAIN = {
    "data": {"mse_units": "(code / 255)^2"},
    "forecasts": {
        "model": {
            "mse": 0.25,
            "csi_m": 0.4,
            "csi_16": 0.5,
            "bias_m": None,
            "csi_by_lead": [0.5, 0.3],
            "mae": 0.5,
            "intervals": {"mse": [0.2, 0.3], "csi_by_lead": [[0.4, 0.6], [0.2, 0.35]]},
        }
    },
}


def found(scores, **more):
    rows = tidy.rows(scores, **more)
    return {(r.score, r.part, r.threshold, r.lead): r for r in rows}


def test_every_number_has_a_row_with_threshold_lead_units_and_interval():
    rows = found(RAIN)
    assert len(rows) == 7
    mse = rows["mse", "", "", None]
    assert (mse.value, mse.low, mse.high, mse.units) == (
        0.25,
        0.2,
        0.3,
        RAIN["data"]["mse_units"],
    )
    assert rows["mae", "", "", None].units == "code / 255"
    assert rows["csi", "", "16", None].value == 0.5
    assert rows["csi", "", "mean", None].units == "1"
    lead = rows["csi", "", "mean", 2]
    assert (lead.value, lead.low, lead.high) == (0.3, 0.2, 0.35)
    assert math.isnan(rows["frequency_bias", "", "mean", None].value)


def test_csv_leaves_empty_what_is_not_known_and_keeps_every_digit():
    table = [tidy.Row('a, b"', "mse", value=1 / 3, lead=1), tidy.Row("x", "csi")]
    lines = list(csv.DictReader(io.StringIO(tidy.text(table))))
    assert lines[0]["forecast"] == 'a, b"' and float(lines[0]["value"]) == 1 / 3
    assert lines[0]["lead"] == "1" and lines[0]["low"] == lines[0]["threshold"] == ""
    assert lines[1]["value"] == lines[1]["lead"] == ""


def test_regions_members_probabilities_and_regimes():
    own = {"crps": 1.0, "crps_interval": [0.9, 1.1], "rank_histogram": [0.5, 0.5]}
    own |= {"events": {">=16": {"brier": 0.1, "brier_by_lead": [0.1], "share": [1]}}}
    scores = {
        "data": {"mse_units": "K^2"},
        "forecasts": {
            "lim": {
                "rmse_T": 2.0,
                "regions": {"Nino3": {"correlation": [0.9]}},
                "categories": {"heidke": [0.2], "hits": [[[1, 2], [3, 4]]]},
            }
        },
        "members": [{"mse": 3.0}],
        "probabilities": {"views": {"field": {"units": "K", "forecasts": {"m": own}}}},
        "clusters": {"number": 3, "embeddings": {"here": {"s": {"mean": 4}}}},
    }
    rows = found(scores, channels={"T": "degC"})
    assert rows["correlation", "Nino3", "", 1].value == 0.9
    assert rows["heidke", "", "", 1].value == 0.2 and ("hits", "", "", 1) not in rows
    assert rows["rmse", "T", "", None].units == "degC"
    assert ("rmse_T", "", "", None) in found(scores)
    assert rows["mse", "", "", None].forecast == "member 1"
    crps = rows["crps", "probabilities", "", None]
    assert (crps.low, crps.high, crps.units) == (0.9, 1.1, "K")
    assert rows["brier", "probabilities", ">=16", 1].value == 0.1
    assert rows["s", "regimes judged here", "", None].value == 4


def test_errors_of_variables_are_in_the_units_of_each():
    score = Sampled(
        "rmse",
        ("variable",),
        {"variable": ("t2m", "msl")},
        "lower",
        "",
        {"model": np.ones((1, 2))},
        None,
    )
    rows = tidy._of_axes(score, {"t2m": "K", "msl": "hPa"})
    assert [(row.part, row.units) for row in rows] == [("t2m", "K"), ("msl", "hPa")]
    assert skill._units("rmse", ("variable",), "(standard deviations)^2") == ""
    assert skill._units("acc", ("variable",), "(standard deviations)^2") == "1"
    assert skill._units("rmse", (), "K^2") == "K"
