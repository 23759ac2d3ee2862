"""Statistics of a training as arrays, against the examples of the training."""

import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax import data
from earthformer_jax.forecast.physical import decode, encode
from tests.data import cube_files


def config(path, **changes):
    return {"name": "custom", "path": path, "in_len": 4, "out_len": 2} | changes


@pytest.mark.parametrize(
    ("step", "frames", "changes", "calendar"),
    [
        ("D", 60, {}, ""),
        ("D", 60, {"targets": "T", "calendar": True}, "season"),
        ("h", 400, {"calendar": True}, "season and day"),
        ("M", 60, {"anomalies": True}, ""),
        ("D", 900, {"name": "climate", "targets": "P"}, "season"),
    ],
)
def test_examples_are_those_of_the_training(tmp_path, step, frames, changes, calendar):
    fields = cube_files.dataset(frames, step=step)
    fields["T"][::7, 1, 1] = np.nan
    fields["T"][:, 0, 0] = np.nan
    settings = config(cube_files.write(fields, tmp_path / "days.nc"), **changes)
    found = data.load(settings).data
    assert found.state is not None
    state = found.state()
    encoding = data.encoding(settings, state)
    assert encoding.calendar == calendar
    example = found.test[0]
    minutes = example["time"]
    at = fields["time"].values.astype("datetime64[m]").astype(int).tolist()
    names = state.layout.channels  # the targets come first
    values = cube_files.stacked(fields, names)[at.index(minutes[0]) :][:6]
    moments = jnp.asarray(minutes[None], jnp.int32)
    given = jnp.asarray(values[None])
    inputs = encode(encoding, given[:, :4], moments[:, :4])[0]
    np.testing.assert_allclose(inputs, example["inputs"], atol=1e-5)
    targets = jnp.asarray(example["targets"][None])
    want = found.normalization.decode(example["targets"], minutes[4:])
    got = decode(encoding, targets, moments[:, 4:])[0]
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_what_has_no_encoding(tmp_path):
    settings = config(cube_files.write(cube_files.dataset(60), tmp_path / "days.nc"))
    found = data.load(settings).data
    assert found.state is not None
    state = found.state()
    with pytest.raises(ValueError, match="out_len=0: this model restores its inputs"):
        data.encoding(settings | {"out_len": 0}, state)
