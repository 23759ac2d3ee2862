"""Stability, robustness and interpretability, measured on embeddings made by hand."""

import pathlib
import types

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def robustness(experiment, monkeypatch):
    monkeypatch.chdir(ROOT)
    return experiment("robustness")


@pytest.fixture
def points():
    return np.random.default_rng(0).standard_normal((60, 3))


def test_cka(robustness, points):
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    assert robustness.cka(points, 5 * points @ rotation + 2) == pytest.approx(1)
    other = np.random.default_rng(2).standard_normal((60, 3))
    assert robustness.cka(points, other) < 0.3
    assert np.isnan(robustness.cka(points, np.ones((60, 3))))


def test_relative_change(robustness, points):
    moved = points + 0.5 * (points - points.mean(axis=0))
    assert robustness.relative_change(points, moved) == pytest.approx(0.5)
    assert robustness.relative_change(points, points) == 0


def test_seasons(robustness):
    dates = np.array(["2001-12-31", "2002-02-28", "2002-03-01", "2002-11-30"], "M8[D]")
    np.testing.assert_array_equal(robustness.seasons_of(dates), [0, 0, 1, 3])


def test_noise_is_the_same_for_a_window_and_in_units_of_the_spread(robustness):
    spread, fields = np.array([1.0, 0.0]), np.zeros((50, 8, 8, 2), np.float32)
    change = robustness.noisy(0.3, spread)
    np.testing.assert_array_equal(change(4, fields), change(4, fields))
    assert not np.array_equal(change(4, fields), change(5, fields))
    assert change(4, fields)[..., 0].std() == pytest.approx(0.3, rel=0.05)
    np.testing.assert_array_equal(change(4, fields)[..., 1], 0)


def test_a_missing_variable_is_its_mean_and_the_calendar_stays(robustness):
    fields = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)
    mean = np.array([7.0, 8.0])
    changed = robustness.Changed(
        [{"inputs": fields, "targets": fields[..., :2]}],
        robustness.without(1, mean),
        variables=2,
    )
    example = changed[0]
    np.testing.assert_array_equal(example["inputs"][..., 0], fields[..., 0])
    np.testing.assert_array_equal(example["inputs"][..., 1], 8)
    np.testing.assert_array_equal(example["inputs"][..., 2], fields[..., 2])
    np.testing.assert_array_equal(example["targets"], fields[..., :2])
    assert len(changed) == 1


def series_of(robustness, embeddings):
    """Days of four years; each season has its own place if embeddings are None."""
    dates = np.arange("2001-01-01", "2005-01-01", dtype="M8[D]")
    n = len(dates)
    if embeddings is None:
        noise = 0.01 * np.random.default_rng(0).standard_normal((n, 2))
        embeddings = np.eye(4)[robustness.seasons_of(dates)][:, :2] + noise
        embeddings[robustness.seasons_of(dates) == 3] -= 1
    year = dates.astype("M8[Y]").astype(int) - 31
    return robustness.report.Series(
        embeddings=embeddings,
        frame=np.arange(n),
        split=np.array([0, 0, 1, 2])[year],
        time=dates.astype("M8[m]").astype(np.int64),
        fields=np.zeros((n, 1, 1, 1)),
        kept=np.arange(n),
    )


def test_regimes_that_are_the_seasons(robustness):
    found = robustness.embedded(series_of(robustness, None), clusters=4)
    assert robustness.seasonal(found) == dict(season_rand=1.0, season_probe=1.0)
    again = robustness.embedded(found.series, 4, like=found)
    np.testing.assert_array_equal(again.regimes, found.regimes)
    both = robustness.alike("seeds", [found, again])
    assert both == dict(seeds_cka=pytest.approx(1.0), seeds_rand=1.0)
    assert robustness.alike("seeds", [found]) == {}


def test_regimes_of_noise(robustness):
    noise = np.random.default_rng(3).standard_normal((1461, 4))
    found = robustness.embedded(series_of(robustness, noise), clusters=4)
    scores = robustness.seasonal(found)
    assert abs(scores["season_rand"]) < 0.02
    assert scores["season_probe"] == pytest.approx(0.25, abs=0.1)


def test_halves_of_the_training_years(robustness):
    found = robustness.embedded(series_of(robustness, None), clusters=2)
    earlier, later = robustness.halves(found)
    assert earlier == dict(
        train_from="2001-01-01",
        train_until="2001-12-31",
        validate_until="2003-12-31",
    )
    assert later["train_from"] == "2002-01-01"
    assert later["train_until"] == "2002-12-31"


@pytest.mark.parametrize("wrong", ["--clusters=1", "--seeds=0", "--steps=0"])
def test_wrong_arguments(robustness, capsys, tmp_path, wrong):
    with pytest.raises(SystemExit):
        robustness.main([wrong, f"--out={tmp_path}"])
    assert f"{wrong}: expected at least" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_training_with_another_config_is_refused(robustness, monkeypatch, tmp_path):
    """Other data or clusters with the same --out are not taken for what was done."""
    autoencoders = robustness.autoencoders
    monkeypatch.setattr(autoencoders, "build", lambda _: pytest.fail("trained again"))
    a = types.SimpleNamespace(
        scale="test", path="", seasons=True, clusters=4, out=tmp_path
    )
    cell = dict(cell="conv_lstm")
    folder = autoencoders.folder_of(a, "ConvLSTM", 0)
    folder.mkdir(parents=True)
    config = autoencoders.make_config(a, 0, 2, cell)
    done = autoencoders.runs.keep(folder, config, {"mse": 0.5})
    assert autoencoders.run(a, "ConvLSTM", cell, 2, 0) == done and done["mse"] == 0.5
    for change in (dict(path="a.nc"), dict(clusters=5), dict(seasons=False)):
        other = types.SimpleNamespace(**{**vars(a), **change})
        with pytest.raises(robustness.Mismatch, match="choose another --out"):
            autoencoders.run(other, "ConvLSTM", cell, 2, 0)
    with pytest.raises(robustness.Mismatch, match=r"steps=2, but train.steps=3"):
        autoencoders.run(a, "ConvLSTM", cell, 3, 0)
