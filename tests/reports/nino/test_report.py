import json

import numpy as np
import pytest

from earthformer_jax.data.dataset import Data
from earthformer_jax.data.normalization import Affine
from earthformer_jax.data.task import ForecastNino
from earthformer_jax.metrics.enso import NinoSkill
from earthformer_jax.reports import ModelFunctions, Settings
from earthformer_jax.reports.nino import report as enso

LATITUDE = np.arange(-10.0, 11.0, 5.0)
LONGITUDE = np.arange(180.0, 251.0, 10.0)
OCEAN = np.ones((5, 8), bool)
OCEAN[0, :2] = False
SCALE, OUT_LEN, WINDOWS = 2.0, 8, 11


class Source:
    """Windows of noise around a common signal; window 4 holds the strongest event."""

    def __len__(self):
        return WINDOWS

    def __getitem__(self, i):
        rng = np.random.default_rng(i)
        targets = rng.normal(size=(OUT_LEN, 5, 8, 1)).astype(np.float32) * 0.1
        targets += np.float32(3.0 if i == 4 else rng.normal() * 0.5)
        targets *= OCEAN[..., None]
        monthly = SCALE * np.einsum("khwc,hw->k", targets, weights())
        return {
            "inputs": targets[:2],
            "targets": targets,
            "start_month": np.int32(i % 12),
            "nino34": monthly.astype(np.float32),
            "nino34_three_month": (
                (monthly[:-2] + monthly[1:-1] + monthly[2:]) / 3
            ).astype(np.float32),
        }


def weights():
    inside = np.zeros((5, 8))
    inside[1:4, 1:7] = 1 / 18
    return inside


def enso_data():
    source = Source()
    return Data(
        name="enso",
        description="signal and noise",
        train=source,
        validation=source,
        test=source,
        loss_weights=OCEAN[None, ..., None].astype(np.float32),
        normalization=Affine(SCALE),
        coordinates={"latitude": LATITUDE, "longitude": LONGITUDE},
    )


def enso_task(index_months=3):
    return ForecastNino(
        metric=NinoSkill(
            weights(),
            OUT_LEN,
            scale=SCALE,
            index_months=index_months,
            mse_in_kelvin=True,
        ),
        references={
            "lim": lambda batch: 0.5 * batch["targets"] + noise(batch),
            "persistence": lambda batch: np.zeros_like(batch["targets"]),
        },
        mse_units="K^2",
        nino_weights=weights(),
        ocean=OCEAN,
        index_months=index_months,
    )


def noise(batch):
    return np.random.default_rng(0).normal(size=batch["targets"].shape)


def perfect(batch):
    return batch["targets"]


def score(forecast, workdir):
    return enso.score(
        enso_task(), enso_data(), ModelFunctions(forecast), workdir, Settings(4, 2)
    )


def test_scores_file_table_and_figures(tmp_path, capsys):
    scores = score(perfect, tmp_path)
    assert json.loads((tmp_path / "scores.json").read_text()) == scores
    assert list(scores["forecasts"]) == ["model", "persistence", "lim"]
    model = scores["forecasts"]["model"]
    np.testing.assert_allclose(model["correlation"], 1, atol=1e-5)
    assert len(model["correlation"]) == OUT_LEN - 2 == len(scores["data"]["leads"])
    assert len(model["correlation_monthly"]) == OUT_LEN
    assert model["mse"] == 0
    assert scores["data"]["test_windows"] == WINDOWS
    table = capsys.readouterr().out
    assert "signal and noise" in table and "three-month mean Niño3.4" in table
    assert [line.split()[0] for line in table.splitlines()[3:-2]] == [
        "model",
        "persistence",
        "lim",
    ]
    assert "better than the best reference, lim" in table.splitlines()[-1]
    figures = sorted(p.name for p in (tmp_path / "figures").iterdir())
    assert figures == ["forecast_maps.png", "nino_skill.png", "skill.png"]


def third(batch):
    return 0.3 * batch["targets"]


def test_batch_size_makes_no_difference():
    found = [
        enso.evaluate(enso_task(), enso_data(), {"model": third}, size)[0]
        for size in (1, 4, 32)
    ]
    for other in found[1:]:
        for name, value in found[0]["model"].items():
            np.testing.assert_allclose(other["model"][name], value, atol=1e-5)


def test_monthly_index_has_more_leads():
    task = enso_task(index_months=1)
    results, *_ = enso.evaluate(task, enso_data(), {"model": perfect}, 4)
    data = enso.describe(task, enso_data(), results)
    assert data["leads"] == list(range(1, OUT_LEN + 1))
    assert data["index"] == "monthly Niño3.4" and data["index_months"] == 1


def test_maps_show_the_strongest_event():
    *_, event = enso.evaluate(enso_task(), enso_data(), {"model": perfect}, 4)
    np.testing.assert_array_equal(event["targets"], Source()[4]["targets"])
    assert event["start_month"] == 4
    assert "valid" in event and list(event["forecasts"]) == ["model"]


def test_a_failing_forecast_leaves_no_scores(tmp_path):
    def broken(batch):
        raise RuntimeError("no forecast")

    with pytest.raises(RuntimeError, match="no forecast"):
        score(broken, tmp_path)
    assert not (tmp_path / "scores.json").exists()


def test_table_of_two_years():
    correlation = [k / 100 for k in range(1, 25)]
    row: dict = dict(correlation=correlation, correlation_mean=0.065, mse=1.0)
    row |= dict(c_nino34_m=0.1, c_nino34_wm=0.2)
    data: dict = dict(
        description="any", index="Niño3.4", test_windows=3, mse_units="K^2"
    )
    data |= dict(leads=list(range(1, 25)), mean_over_leads=12)
    lines = enso.table({"data": data, "forecasts": {"model": row}}).splitlines()
    assert "mean: of leads 1 to 12" in lines[1]
    shown = [*range(1, 13), 15, 18, 21, 24]
    assert lines[2].split()[: len(shown)] == [str(k) for k in shown]
    values = lines[3].split()[1 : 1 + len(shown)]
    assert values == [f"{k / 100:.2f}" for k in shown]
