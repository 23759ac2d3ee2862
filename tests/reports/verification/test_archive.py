"""sums.nc: what is read is what was written, or an error that says why not."""

import dataclasses
import functools
import os
import typing

import jax
import netCDF4
import numpy as np
import pytest
import xarray as xr

from earthformer_jax.metrics.scores import continuous
from earthformer_jax.metrics.verification import Score
from earthformer_jax.reports.verification import archive
from tests.reports.verification.fields import data
from tests.reports.verification.test_sums import gathered


@pytest.fixture(scope="module")
def sums():
    return gathered(data(6))[0]


def test_reading_inverts_writing(tmp_path, sums):
    path = tmp_path / "a" / "sums.nc"
    archive.write(path, sums)
    found = archive.read(path)
    assert os.listdir(path.parent) == ["sums.nc"] and found.step == 0
    jax.tree.map(np.testing.assert_array_equal, found.values, dict(sums.values))
    for field in dataclasses.fields(sums.examples):
        values = (getattr(x.examples, field.name) for x in (found, sums))
        np.testing.assert_array_equal(*values)
    totals = jax.tree.map(lambda x: x.sum(axis=0), found.values["model"])
    assert list(found.verification.scores) == list(sums.verification.scores)
    for name in sums.verification.scores:
        assert found.verification.dims(name) == sums.verification.dims(name)
        assert found.verification.coords(name) == sums.verification.coords(name)
        np.testing.assert_array_equal(
            found.verification.value(name, totals),
            sums.verification.value(name, totals),
        )


def test_the_file_explains_itself(tmp_path, sums):
    archive.write(tmp_path / "sums.nc", sums)
    with xr.open_dataset(tmp_path / "sums.nc", group="contingency") as group:
        assert group["hits"].dims == ("forecast", "block", "lead", "threshold", "pool")
        assert group["threshold"].values.tolist() == [16, 74]
        assert group["lead"].values.tolist() == [1, 2, 3]


def test_a_killed_write_leaves_the_old_file(tmp_path, sums, monkeypatch):
    path = tmp_path / "sums.nc"
    archive.write(path, sums)
    before = path.read_bytes()
    monkeypatch.setattr(archive, "_group", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        archive.write(path, sums)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["sums.nc"]


def test_another_file_is_refused(tmp_path, sums):
    xr.Dataset({"x": 1}).to_netcdf(tmp_path / "other.nc")
    with pytest.raises(ValueError, match=r"other.nc has format=None: expected 1"):
        archive.read(tmp_path / "other.nc")
    (tmp_path / "text.nc").write_text("text")
    with pytest.raises(ValueError, match=r"text.nc cannot be read as NetCDF \("):
        archive.read(tmp_path / "text.nc")
    with pytest.raises(FileNotFoundError):
        archive.read(tmp_path / "nowhere.nc")


ANY_OPTIONS: typing.Any = continuous.psnr


class Callable:
    """A score function without a name."""

    def __call__(self, sums):
        return 0


@pytest.mark.parametrize(
    "function, expected",
    [
        (np.mean, "one of a module"),
        (functools.partial(lambda sums: 0), "one of a module"),
        (Callable(), "one of a module"),
        (functools.partial(ANY_OPTIONS, data_range=Callable()), "numbers and"),
        (functools.partial(ANY_OPTIONS, 2.0), "all of its arguments by name"),
    ],
)
def test_a_score_that_cannot_be_kept_is_refused(tmp_path, sums, function, expected):
    verification = dataclasses.replace(
        sums.verification, scores={"own": Score("errors", function)}
    )
    message = f"cannot be kept in sums.nc: expected {expected}"
    with pytest.raises(ValueError, match=message):
        archive.write(
            tmp_path / "sums.nc", dataclasses.replace(sums, verification=verification)
        )
    assert not os.listdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        archive.check(verification)


def test_the_file_names_the_step(tmp_path, sums):
    path = tmp_path / "sums.nc"
    archive.write(path, dataclasses.replace(sums, step=1200))
    assert archive.read(path).step == 1200
    with netCDF4.Dataset(path, "a") as file:  # as an earlier version left it
        del file.step
    assert archive.read(path).step == 0


def test_stored_sums_are_not_added_to(tmp_path, sums):
    archive.write(tmp_path / "sums.nc", sums)
    statistics = archive.read(tmp_path / "sums.nc").verification.statistics
    with pytest.raises(TypeError, match="sums that were read from a file"):
        statistics["errors"](jax.numpy.zeros(1), {})


def test_what_a_killed_process_left_is_replaced(tmp_path, sums):
    """As after SIGKILL: a part of a file that nobody removed."""
    (tmp_path / ".sums.nc.part").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    archive.write(tmp_path / "sums.nc", sums)
    assert os.listdir(tmp_path) == ["sums.nc"]
    assert list(archive.read(tmp_path / "sums.nc").values) == list(sums.values)
