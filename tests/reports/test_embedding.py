"""The report on embeddings, for a perfect autoencoder and a useless one."""

import json

import numpy as np
import pytest
import xarray as xr

from earthformer_jax import data
from earthformer_jax.metrics import clusters
from earthformer_jax.reports import ModelFunctions, Settings, embedding
from tests.data import cube_files


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """100 days; half of them, in turns of ten, are ten units warmer."""
    ds = cube_files.dataset(100)
    warm = (np.arange(100) // 10) % 2
    ds["T"] = ds["T"] + 10 * warm[:, None, None]
    path = cube_files.write(ds, tmp_path_factory.mktemp("cube") / "cube.nc")
    return data.load(dict(name="custom", path=path, in_len=5, out_len=0), seed=0)


def restore(batch):
    return np.asarray(batch["targets"])


def embed(batch):
    """The mean of every variable."""
    return np.asarray(batch["inputs"]).mean(axis=(2, 3))


def score(dataset, workdir, clusters):
    model, settings = ModelFunctions(restore, embed), Settings(4, clusters)
    return embedding.score(dataset.task, dataset.data, model, workdir, settings)


@pytest.fixture(scope="module")
def report(dataset, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    scores = score(dataset, workdir, clusters=2)
    return workdir, scores


def test_scores(report):
    workdir, scores = report
    assert json.loads((workdir / "scores.json").read_text()) == scores
    assert scores["forecasts"]["model"]["mse"] == 0
    assert scores["forecasts"]["climatology"]["mse"] > 0.1
    components = scores["forecasts"]["2 principal components"]["mse"]
    assert 0 < components < scores["forecasts"]["climatology"]["mse"]
    own = scores["clusters"]["embeddings"]["in their own space"]
    assert set(own) == set(clusters.DIRECTIONS)
    assert own["silhouette"]["mean"] > 0.3 and own["silhouette"]["spread"] < 0.1


def test_file(report, dataset):
    file = xr.load_dataset(report[0] / "embeddings.nc")
    assert file.sizes == {"time": 100, "feature": 2}
    assert (np.diff(file.time.values) == np.timedelta64(1, "D")).all()
    warm = (np.arange(100) // 10) % 2
    assert clusters.agreement(file.regime.values, warm) == 1
    assert list(np.bincount(file.split.values)) == [70, 15, 15]
    first = dataset.task.series[0]
    np.testing.assert_allclose(
        file.embedding[:3], embed({"inputs": first["inputs"][None]})[0, :3], atol=1e-6
    )


def test_figures(report):
    names = {path.name for path in (report[0] / "figures").iterdir()}
    assert names == {"regimes.png", "composites.png", "projection.png", "restored.png"}


def test_table(report):
    text = embedding.table(report[1])
    assert "principal components" in text and "silhouette" in text and "±" in text


def test_frames_without_dates(tmp_path):
    values = np.random.default_rng(0).normal(size=(60, 4, 5)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    source = data.load(
        dict(name="custom", path=str(tmp_path / "x.npy"), in_len=4, out_len=0), seed=0
    )
    score(source, tmp_path / "run", clusters=3)
    file = xr.load_dataset(tmp_path / "run" / "embeddings.nc")
    np.testing.assert_array_equal(file.frame, np.arange(60))
    assert not (tmp_path / "run" / "figures" / "regimes.png").exists()


def test_many_frames_are_judged_by_some(dataset, monkeypatch):
    monkeypatch.setattr(embedding, "JUDGED", 11)
    series = embedding.gather(dataset.task.series, embed, 4)
    assert len(series.embeddings) == 100 and len(series.fields) == 11
    assert series.kept[0] == 0 and series.kept[-1] == 99


def test_more_regimes_than_frames(dataset, tmp_path):
    with pytest.raises(ValueError, match="clusters=90"):
        score(dataset, tmp_path, clusters=90)
