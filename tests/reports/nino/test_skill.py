"""Scores with intervals and differences, in scores.json, in text and as NetCDF."""

import dataclasses
import json

import numpy as np
import pytest
import xarray as xr

from earthformer_jax import plotting, reports
from earthformer_jax.data import leaks
from earthformer_jax.data.dataset import Data
from earthformer_jax.data.normalization import Affine
from earthformer_jax.data.readers.grid import Grid, box_weights
from earthformer_jax.data.task import ForecastNino
from earthformer_jax.metrics.enso import NinoSkill
from earthformer_jax.reports.nino import archive, page, report, skill

LATITUDE = np.arange(-12.5, 13, 5.0)
LONGITUDE = np.arange(152.5, 288, 15.0)
OCEAN = np.ones((6, 10), bool)
OCEAN[0, :3] = OCEAN[1:3, 8] = False
LEADS, SCALE = 6, 2.0
WEIGHTS = box_weights(Grid(LATITUDE, LONGITUDE, OCEAN))


class Series:
    """Windows of one month after the other, of a wave of 40 months and noise."""

    def __init__(self, windows, gaps=False):
        self.windows, self.gaps = windows, gaps

    def __len__(self):
        return self.windows

    def __getitem__(self, i):
        months = i + np.arange(LEADS)
        rng = np.random.default_rng(i)
        wave = 0.8 * np.sin(2 * np.pi * months / 40)[:, None, None, None]
        targets = wave + 0.2 * rng.normal(size=(LEADS, *OCEAN.shape, 1))
        targets = (targets * OCEAN[..., None]).astype(np.float32)
        monthly = SCALE * np.einsum("khwc,hw->k", targets, WEIGHTS)
        example = {
            "inputs": targets[:2],
            "targets": targets,
            "start_month": np.int32(i % 12),
        }
        if self.gaps:
            observed = np.broadcast_to(OCEAN[..., None], targets.shape).copy()
            observed[:, 3:, 5:] = False
            observed[4] = False
            monthly[4] = np.nan
            example["observed"] = observed
        three = (monthly[:-2] + monthly[1:-1] + monthly[2:]) / 3
        return example | {
            "nino34": monthly.astype(np.float32),
            "nino34_three_month": three.astype(np.float32),
        }


def spoilt(share, seed):
    """A forecast: the truth, and noise that depends on the window alone."""

    def forecast(batch):
        targets = np.asarray(batch["targets"])
        made = []
        for target, month in zip(targets, batch["start_month"], strict=True):
            rng = np.random.default_rng(
                [seed, int(month), int(1e6 * abs(target[0, 3, 5, 0]))]
            )
            event = rng.normal(size=(LEADS, 1, 1, 1))
            made.append(target + share * event)
        return np.asarray(made, np.float32)

    return forecast


def spans(starts):
    nothing = leaks.of_starts(np.arange(0), 2, LEADS)
    return {
        "train": nothing,
        "validation": nothing,
        "test": leaks.of_starts(starts, 2, LEADS),
    }


def enso_data(windows, gaps=False):
    source = Series(windows, gaps)
    return Data(
        name="enso",
        description="a wave and noise",
        train=source,
        validation=source,
        test=source,
        loss_weights=OCEAN[None, ..., None].astype(np.float32),
        normalization=Affine(SCALE),
        coordinates={"latitude": LATITUDE, "longitude": LONGITUDE},
        spans=spans(np.arange(windows)),
    )


def enso_task(references):
    metric = NinoSkill(
        WEIGHTS,
        LEADS,
        scale=SCALE,
        index_months=1,
        pixel_weights=OCEAN[None, ..., None].astype(np.float32),
        mse_in_kelvin=True,
    )
    return ForecastNino(
        metric=metric,
        references=references,
        mse_units="K^2",
        nino_weights=WEIGHTS,
        ocean=OCEAN,
        index_months=1,
    )


REFERENCES = {"persistence": spoilt(1.5, 1), "lim": spoilt(0.8, 2)}


def evaluate(model, windows=180, gaps=False, references=REFERENCES):
    data = enso_data(windows, gaps)
    task = enso_task(references)
    forecasts = {"model": model, **task.references}
    results, found, _ = report.evaluate(task, data, forecasts, 64)
    return data, results, found


@pytest.fixture(scope="module")
def better():
    return evaluate(spoilt(0.3, 3))


@pytest.mark.parametrize("gaps", [False, True])
def test_scores_of_windows_are_the_streamed_ones(gaps):
    _, results, found = evaluate(spoilt(0.3, 3), windows=40, gaps=gaps)
    for name, scores in results.items():
        for key in ("correlation", "correlation_mean", "c_nino34_m", "mse"):
            np.testing.assert_allclose(
                found.value(key, name), scores[key], rtol=1e-4, err_msg=key
            )
    regions = skill.region_scores(found.windows)
    assert list(regions) == ["Nino3.4", "Nino3", "Nino4"]  # 1+2 is on land
    known = np.isfinite(regions["Nino3"]["rmse"])
    assert known.all(axis=0).tolist() == [True] * 4 + [not gaps, True]


def test_scores_file(better):
    _, _, found = better
    added = skill.added_scores(found)
    json.dumps(added)
    model = added["model"]
    assert list(model["differences"]) == ["persistence", "lim"]
    assert list(added["persistence"]["differences"]) == ["lim"]
    assert added["lim"]["differences"] == {}  # best in all scores
    low, high = model["intervals"]["correlation_mean"]
    assert low < found.value("correlation_mean", "model") < high
    assert np.shape(model["intervals"]["correlation"]) == (LEADS, 2)
    assert np.shape(model["intervals"]["rmse"]) == (LEADS, 2)
    assert np.shape(model["categories"]["hits"]) == (LEADS, 3, 3)
    gap = model["differences"]["lim"]["mse"]
    assert gap["interval"][0] < gap["difference"] < gap["interval"][1] < 0
    assert skill.about(found)["strongest_reference"] == "lim"
    assert skill.about(found)["block_windows"] == 36


def test_what_is_said_of_the_model(better):
    lines = skill.summary(better[2])
    assert "90% intervals from blocks of 36 successive windows" in lines[0]
    assert lines[1].startswith(
        "By correlation the model is better than the best reference, lim:"
    )
    worse = skill.verdict(evaluate(spoilt(1.2, 3))[2])
    assert worse.startswith("By correlation the model is worse than")


def test_a_model_that_is_the_reference_is_as_good():
    same = REFERENCES["lim"]
    _, _, found = evaluate(lambda batch: same(batch) * np.float32(1 + 1e-6))
    assert "as good as the best reference, lim" in skill.verdict(found)


def test_the_ceiling_is_not_a_reference():
    _, _, found = evaluate(spoilt(0.3, 3), 40, references={"ceiling": spoilt(0, 0)})
    assert found.strongest is None and found.references == []


def test_a_block_is_three_years_of_windows():
    data = enso_data(100)
    assert skill.block_of(data) == 36
    apart = spans(np.arange(0, 300, 3))
    assert skill.block_of(dataclasses.replace(data, spans=apart)) == 12
    assert skill.block_of(dataclasses.replace(data, spans={})) == 1


def test_the_file_of_arrays(better, tmp_path):
    data, _, found = better
    archive.write(tmp_path / "skill.nc", found, data)
    assert [path.name for path in tmp_path.iterdir()] == ["skill.nc"]
    with xr.open_dataset(tmp_path / "skill.nc") as content:
        assert all(x.attrs["long_name"] for x in content.data_vars.values())
        model = content.sel(forecast="model", region="Nino3.4")
        np.testing.assert_allclose(
            model["correlation"], found.value("correlation", "model"), atol=1e-6
        )
        np.testing.assert_allclose(
            np.sqrt(((model["index"] - model["observed_index"]) ** 2).mean("window")),
            found.value("rmse", "model"),
            rtol=1e-5,
        )
        cell = content.sel(map_lead=3, latitude=2.5, longitude=212.5)
        p, t = (
            np.array([f[2, 3, 4, 0] for f in fields])
            for fields in zip(
                *[
                    (spoilt(0.3, 3)(batch)[0], batch["targets"][0])
                    for batch in (
                        {k: v[None] for k, v in data.test[i].items()}
                        for i in range(180)
                    )
                ],
                strict=True,
            )
        )
        found_cell = cell.sel(forecast="model")
        np.testing.assert_allclose(
            found_cell["map_correlation"], np.corrcoef(p, t)[0, 1], rtol=1e-5
        )
        np.testing.assert_allclose(
            found_cell["map_mse"], SCALE**2 * np.mean((p - t) ** 2), rtol=1e-4
        )


def texts(figure):
    return " ".join(
        [t.get_text() for t in figure.texts]
        + [t.get_text() for axes in figure.axes for t in axes.texts]
    )


def test_page(better, tmp_path):
    data, _, found = better
    figure = plotting.skill_page(page.content(found, data, "monthly Niño3.4"))
    plotting.save(figure, tmp_path / "page.png", cut=False)
    assert figure.get_size_inches().tolist() == [8.27, 11.69]
    assert "the model is better than the linear inverse model" in texts(figure)
    assert "blocks of 36 successive windows" in texts(figure)


@pytest.mark.parametrize("references", [REFERENCES, {}])
def test_a_short_test_period_says_what_is_missing(tmp_path, capsys, references):
    data, task = enso_data(9), enso_task(references)
    scores = reports.score(
        task,
        data,
        reports.ModelFunctions(spoilt(0.3, 3)),
        tmp_path,
        reports.Settings(4, 2),
    )
    reason = "9 test windows are too few for intervals: 4 blocks of 36 are needed"
    assert reason in capsys.readouterr().out
    assert scores["data"]["intervals"]["none_because"] == reason
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["forecasts"]["model"]["intervals"]["mse"] == [None, None]
    _, _, found = evaluate(spoilt(0.3, 3), 9, references=references)
    shown = texts(
        plotting.skill_page(page.content(found, data, "monthly Niño3.4"))
    ).replace("\n", " ")
    assert reason in shown and "Too few years are known" in shown
    assert ("There is no reference to compare with" in shown) == (not references)
