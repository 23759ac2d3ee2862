"""El Niño forecasts of several workdirs, compared from skill.nc."""

import numpy as np
import pytest
import xarray as xr

from earthformer_jax.reports.nino import archive
from earthformer_jax.reports.verification import archive as sums_archive
from earthformer_jax.reports.verification import comparison
from earthformer_jax.reports.verification.compare import compare
from tests.reports.nino.test_skill import REFERENCES, evaluate, spoilt
from tests.reports.verification.fields import data as frames_data
from tests.reports.verification.test_sums import gathered


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Workdirs of two models, the skill of each, and a function that makes others."""
    root = tmp_path_factory.mktemp("runs")

    def make(name, model, **options):
        data, _, found = evaluate(model, **options)
        (root / name).mkdir()
        archive.write(root / name / "skill.nc", found, data)
        return root / name, found

    return make("good", spoilt(0.3, 3)), make("poor", spoilt(1.2, 4)), make


def test_each_model_has_its_interval_of_the_report(evaluated):
    """Names, numbers and samples are those of the reports of single models."""
    (good, first), (poor, second), _ = evaluated
    found = compare([good, poor])
    assert list(found.models) == ["good", "poor"] and found.strongest == "lim"
    assert found.headline == ["correlation_mean", "c_nino34_m", "mse"]
    for score in found.numbers:
        for name, own in (("good", first), ("poor", second)):
            for mine, its in ((name, "model"), ("lim", "lim")):
                # skill.nc holds float32
                np.testing.assert_allclose(
                    score.interval(mine), own.interval(score.name, its), rtol=1e-4
                )
            _, limits = own.difference(score.name, "model", "lim")
            np.testing.assert_allclose(
                score.difference(name, "lim").interval, limits, rtol=1e-3, atol=1e-5
            )
    text = comparison.table(found)
    assert "180 test windows; 90% intervals from blocks of 36 successive" in text
    assert "good minus poor: correlation_mean +" in text and "better" in text


def test_files_and_figure(evaluated, tmp_path):
    found = compare([evaluated[0][0], evaluated[1][0]])
    files = comparison.write(found, tmp_path)
    assert [x.name for x in files] == list(comparison.FILES)
    (left, right, *_) = comparison.figure(found).axes
    assert left.get_ylabel() == "Correlation of the index (higher is better)"
    assert right.get_ylabel() == "RMSE, K (lower is better)"


def test_other_windows_are_refused(evaluated):
    good, make = evaluated[0][0], evaluated[2]
    short, _ = make("short", spoilt(0.3, 3), windows=150)
    with pytest.raises(ValueError, match="number of windows: 180 and 150"):
        compare([good, short])
    gaps, _ = make("gaps", spoilt(0.3, 3), gaps=True)
    with pytest.raises(ValueError, match="the observed index, by up to"):
        compare([good, gaps])


def test_another_reference_of_the_same_name_is_refused(evaluated):
    other, _ = evaluated[2](
        "other", spoilt(0.3, 3), references=REFERENCES | {"lim": spoilt(0.9, 2)}
    )
    with pytest.raises(
        ValueError, match="the reference 'lim' is not the same forecast"
    ):
        compare([evaluated[0][0], other])


def test_a_file_of_an_older_version_is_refused(evaluated, tmp_path):
    good = evaluated[0][0]
    with xr.open_dataset(good / "skill.nc") as content:
        old = content.drop_vars("observed_three_month").load()
    old.to_netcdf(tmp_path / "skill.nc")
    with pytest.raises(
        ValueError, match="has no observed_three_month: it is of an older version"
    ):
        compare([good, tmp_path])


def test_frames_are_not_compared_with_el_nino(evaluated, tmp_path):
    sums_archive.write(tmp_path / "sums.nc", gathered(frames_data(4))[0])
    with pytest.raises(
        ValueError, match="forecasts of El Niño cannot be compared with"
    ):
        compare([evaluated[0][0], tmp_path])
