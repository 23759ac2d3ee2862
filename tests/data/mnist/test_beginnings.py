"""Frames of sequences of digits that forecasts begin from."""

from typing import Any

import numpy as np
import pytest

from earthformer_jax import data
from earthformer_jax.data.forecasting.beginnings import LAST, Starts
from tests.data import tfds_folder

LENGTHS = dict(in_len=3, out_len=4)
SMALL: dict[str, Any] = dict(train=2, validation=1, test=3, size=32) | LENGTHS


def state_of(config):
    state = data.load(config).data.state
    assert state is not None
    return state()


def config(path, name="moving_mnist", **settings: Any):
    return {"name": name, "path": str(path)} | LENGTHS | settings


def sequences(frames=20, count=30):
    """uint8 `[t, n, h, w]`, all frames different."""
    generator = np.random.default_rng(5)
    return generator.integers(0, 256, (frames, count, 16, 16), np.uint8)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("moving") / "mnist_test_seq.npy"
    np.save(path, sequences())
    return path


@pytest.fixture(scope="module")
def trained(path):
    return state_of(config(path))


def bright(frames):
    """Model units of stored frames `[t, h, w]`."""
    return (frames / np.float32(255)).astype(np.float32)[..., None]


@pytest.mark.parametrize("name", ["moving_mnist", "nbody_mnist"])
def test_generated_test_sequences(name):
    chosen = config("", name, **SMALL)
    found = data.beginnings(chosen, state_of(chosen))
    whole = data.load(chosen).data.test[2]
    frames = np.concatenate([whole["inputs"], whole["targets"]])
    np.testing.assert_array_equal(found.windows[0]["inputs"], frames[-3:])
    assert (found.last.tolist(), found.reference, found.following) == ([6], None, None)
    assert found.coordinates["sequence"].tolist() == [2]


def test_the_last_frames_of_the_last_sequence(path, trained):
    found = data.beginnings(config(path), trained)
    example = found.windows[0]
    np.testing.assert_array_equal(example["inputs"], bright(sequences()[-3:, -1]))
    assert (found.last.tolist(), example["filled"]) == ([19], 0)


def test_every_frame_of_every_sequence(path, trained):
    found = data.beginnings(config(path), trained, Starts("all", every=9))
    assert len(found.windows) == 30 * 2
    assert found.last[:4].tolist() == [2, 11, 2, 11]
    expected = bright(sequences()[9:12, 1])
    np.testing.assert_array_equal(found.windows[3]["inputs"], expected)


@pytest.mark.parametrize("count", [1, 5])
def test_targets_are_not_needed(tmp_path, trained, count):
    """Not even where there are fewer sequences than frames."""
    np.save(tmp_path / "new.npy", sequences(4, count))
    found = data.beginnings(config(tmp_path / "new.npy"), trained)
    expected = bright(sequences(4, count)[1:, -1])
    np.testing.assert_array_equal(found.windows[0]["inputs"], expected)


def test_other_sizes_on_request(path, trained):
    small = config(path, space_step=2)
    found = data.beginnings(small, trained, allow_other_grid=True)
    assert found.windows[0]["inputs"].shape == (3, 8, 8, 1)


def test_prepared(tmp_path, trained):
    folder = tfds_folder.write(
        tmp_path / "moving_mnist" / "1.0.0",
        "moving_mnist",
        "image_sequence",
        tfds_folder.video,
        {"test": np.moveaxis(sequences(), 0, 1)[..., None]},
    )
    found = data.beginnings(config(folder), trained)
    expected = bright(sequences()[-3:, -1])
    np.testing.assert_array_equal(found.windows[0]["inputs"], expected)


def test_a_forecast_fed_back(path, trained):
    found = data.beginnings(config(path), trained)
    inputs = found.windows[0]["inputs"]
    forecast = np.stack([np.full((16, 16, 1), v, np.float32) for v in (-0.5, 2.0)])
    assert found.advance is not None
    moved = found.advance(inputs, forecast, None)
    np.testing.assert_array_equal(
        moved, np.stack([inputs[-1], *np.clip(forecast, 0, 1)])
    )


@pytest.mark.parametrize(
    ("starts", "frames", "settings", "message"),
    [
        (Starts("2019"), 20, {}, "start=2019: .* has no dates; use start=last or all"),
        (Starts("all", "2019"), 20, {}, "stop=2019: .* has no dates"),
        (LAST, 2, {}, "in_len=3 frames are needed; .* have 2"),
        (LAST, 20, {"space_step": 2}, "8 x 8 pixels, those .* on 16 x 16"),
    ],
)
def test_refused(tmp_path, trained, starts, frames, settings, message):
    np.save(tmp_path / "new.npy", sequences(frames))
    with pytest.raises(ValueError, match=message):
        data.beginnings(config(tmp_path / "new.npy", **settings), trained, starts)
