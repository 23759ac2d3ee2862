"""Users' own files."""

import numpy as np
import pytest

from earthformer_jax import data
from tests import golden_files
from tests.data import cube_files


def load(**settings):
    return data.load({"name": "custom"} | settings, 0)


def test_without_a_path_it_is_the_twin():
    dataset = load(twin_years=3)
    assert "climate twin" in dataset.data.description
    assert "no `path` was given" in dataset.data.description
    assert dataset.data.train[0]["inputs"].shape == (10, 16, 24, 3)
    assert dataset.data.display.channels[0].name == "t2m"


def test_a_file(tmp_path):
    path = cube_files.write(cube_files.dataset(60), tmp_path / "mine.nc")
    dataset = load(path=path, in_len=3, out_len=2)
    assert dataset.data.name == "custom"
    assert dataset.data.description.startswith("mine.nc: T, P on 4 x 5 cells")


def test_numbers_that_may_mark_missing_values(tmp_path):
    """One that nothing declares is refused; one that occurs nowhere is said."""
    ds = cube_files.dataset(60)
    ds["T"].values[:, 1, 1] = -1000
    ds["P"].values[7, 2, :3] = -2000  # in one frame, which no sample contains
    path = cube_files.write(ds, tmp_path / "mine.nc")
    lengths = dict(path=path, in_len=3, out_len=2)
    with pytest.raises(ValueError, match="% of 'T' are -1000, far from all .*=-1000;"):
        load(**lengths)
    with pytest.raises(ValueError, match="0.25 % of 'P' are -2000, far"):
        load(**lengths, variables="P")
    text = load(**lengths, missing="-1000,-2000,-77").data.description
    assert "2.5 % of the cells are never observed" in text
    assert text.endswith("missing=-77: no value of 'T' or 'P' is that")
    scale = load(**lengths, missing="nan").data.display.channels[0].scale
    assert scale > 100


def test_radar_composite():
    """HDF5 with axes by guess, times as text, 255 for missing, no coordinates."""
    path = golden_files.shared_file("data", "radar", "fmi_composite_20160928.h5")
    dataset = load(path=str(path), missing=255, space_step=20, in_len=6, out_len=3)
    assert dataset.data.display.frame == "5 min"
    assert dataset.data.train[0]["inputs"].shape == (6, 61, 38, 1)
    sizes = (
        len(dataset.data.train),
        len(dataset.data.validation),
        len(dataset.data.test),
    )
    assert sizes == (20, 4, 4)
    assert 0.2 < np.mean(dataset.data.loss_weights == 0) < 0.3
    shown = dataset.data.display.channels[0].shown(dataset.data.train[0]["targets"])
    assert -1e-3 < shown.min() < shown.max() < 180


def test_radar_sequences():
    """Five sequences of 49 frames in one array, cut from one record of 92.

    Of 35 windows each of validation and test, most have targets that are trained on.
    """
    path = golden_files.shared_file(
        "data/radar/sevir_layout/data/vil/2010/KNMI_RATE_2010_0826.h5"
    )
    dataset = load(path=str(path), variables="vil", missing=255, space_step=16)
    sizes = (
        len(dataset.data.train),
        len(dataset.data.validation),
        len(dataset.data.test),
    )
    assert sizes == (3 * 35, 8, 3)
    assert (
        "59 windows left out whose targets are also in an earlier split"
        in dataset.data.description
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(variables="codes"), "did you mean 'code'"),
        (dict(axes="thwc"), "axes='thwc' names 4 axes; 'code' of .* has 3: .40, 1226,"),
        (
            dict(region=(1, 2, 3, 4)),
            "needs latitudes of rows and longitudes of columns",
        ),
        (dict(in_len=30), "in_len=30 and out_len=5 need at least 45 frames, .* has 40"),
    ],
)
def test_radar_composite_refused(settings, message):
    path = golden_files.shared_file("data", "radar", "fmi_composite_20160928.h5")
    with pytest.raises(ValueError, match=message):
        load(path=str(path), **settings)
