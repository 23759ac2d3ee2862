"""Trained models as files: complete, unchanged, or refused."""

import io
import json
import os
import zipfile
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from earthformer_jax.data.state import DataState, Layout
from earthformer_jax.forecast import archive
from earthformer_jax.forecast.archive import Archive
from earthformer_jax.settings import ConfigError

CONFIG = {"seed": 1, "data": {"name": "custom", "missing": [], "path": "a/ß.nc"}}


def make(**changes):
    state = DataState(
        name="custom",
        description="days",
        layout=Layout(channels=("T", "P"), units=("K", ""), size=(2, 3), frame="1 day"),
        input_shape=(4, 2, 3, 2),
        target_shape=(2, 2, 3, 2),
        examples={"train": 10, "validation": 2, "test": 3},
        minutes={"train": (0, 1440), "validation": (2880, 4320), "test": (1, 2)},
        fitted=xr.Dataset({"scale": ("channel", np.array([1, 2], np.float32))}),
    )
    kernel = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    variables = {
        "params": {"head": {"kernel": kernel, "half": jnp.full(2, 0.1, jnp.bfloat16)}},
        "batch_stats": {"norm": {"count": np.int32(3)}},
    }
    given: dict[str, Any] = {
        "config": CONFIG,
        "state": state,
        "variables": variables,
        "metadata": {"card": "# A model"},
        "program": bytes(range(256)),
        "self_test": {
            "inputs": np.array([np.nan, 1], np.float32),
            "forecast": np.array([2], np.float32),
        },
    }
    return Archive(**given | changes)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "new" / "model.efx"
    archive.write(path, make())
    return path


def test_everything_comes_back(path):
    before, found = make(), archive.read(path)
    assert found.config == CONFIG
    assert found.metadata == {"card": "# A model", "version": archive.VERSION}
    assert found.program == before.program
    assert found.state.layout.channels == ("T", "P")
    assert found.state.minutes == before.state.minutes
    np.testing.assert_array_equal(found.state.fitted["scale"], [1, 2])
    weights = found.variables["params"]["head"]
    np.testing.assert_array_equal(
        weights["kernel"], before.variables["params"]["head"]["kernel"]
    )
    half = jnp.bfloat16(0.1)
    assert weights["half"].dtype == np.float32
    np.testing.assert_array_equal(jnp.asarray(weights["half"], jnp.bfloat16), half)
    count = found.variables["batch_stats"]["norm"]["count"]
    assert (count.dtype, count.shape, int(count)) == (np.int32, (), 3)
    assert found.self_test is not None
    assert sorted(found.self_test) == ["forecast", "inputs"]
    np.testing.assert_array_equal(found.self_test["inputs"], [np.nan, 1])


def test_the_lasting_form_needs_no_program(tmp_path):
    path = tmp_path / "small.efx"
    archive.write(path, make(program=None, self_test=None, variables={"params": {}}))
    found = archive.read(path)
    assert (found.program, found.self_test) == (None, None)
    assert found.variables == {"params": {}}


def test_equal_content_gives_equal_bytes(path, tmp_path):
    again = tmp_path / "again.efx"
    archive.write(again, make())
    assert again.read_bytes() == path.read_bytes()


def test_any_zip_program_reads_it(path):
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        assert json.loads(file.read("config.json")) == CONFIG
        assert file.namelist()[0] == "metadata.json"
        assert "weights/params/head/kernel.npy" in file.namelist()
        assert not [name for name in file.namelist() if name.endswith("pkl")]


def test_a_flipped_byte_is_refused(path):
    """In the data, the headers and the directory of the ZIP, and the checksum."""
    content = path.read_bytes()
    directory = content.index(b"PK\1\2")
    end = content.index(b"PK\5\6")
    structure = [*range(60), *range(directory, directory + 60), *range(end, end + 30)]
    spread = range(60, len(content), len(content) // 300)
    for at in {*structure, *spread, *range(len(content) - 70, len(content))}:
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match="damaged"):
            archive.read(path)
    path.write_bytes(content)
    archive.read(path)


@pytest.mark.parametrize("left", [0, 3, 100, 2000, -64, -1])
def test_part_of_a_file_is_refused(path, left):
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ConfigError, match="damaged"):
        archive.read(path)


def test_what_was_added_is_refused(path):
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(ConfigError, match="damaged"):
        archive.read(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.efx"
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    for content in (b"", b"CDF\1" + bytes(200), buffer.getvalue()):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="is not a file of an exported model"):
            archive.read(path)
    with pytest.raises(FileNotFoundError):
        archive.read(tmp_path / "none.efx")


def test_a_newer_format_is_refused(path, monkeypatch):
    monkeypatch.setattr(archive, "VERSION", 2)
    archive.write(path, make(metadata={"earthformer_jax": "9.1"}))
    monkeypatch.undo()
    message = r"newer version .*format 2, by earthformer_jax 9.1.*install a newer"
    with pytest.raises(ConfigError, match=message):
        archive.read(path)


def test_what_cannot_be_written_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()
    replace = os.replace

    def full(source, target):
        if target == path:
            raise OSError("No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        archive.write(path, make(program=None))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with pytest.raises(TypeError):
        archive.write(path, make(config={"data": object()}))
    with pytest.raises(ValueError, match="[Oo]bject"):
        archive.write(path, make(self_test={"x": np.array([object()])}))
    assert path.read_bytes() == before
