"""Any data set with its frames as inputs and as targets."""

import dataclasses
import types
from typing import Any

import ml_collections
import numpy as np
import pytest

from earthformer_jax import data, models
from earthformer_jax.data.dataset import Data, Dataset
from earthformer_jax.data.task import ForecastFrames, RestoreFrames
from earthformer_jax.metrics.pixel import PixelError
from earthformer_jax.run.forecasting import making
from earthformer_jax.run.tokenizers.restoring import to_restore
from earthformer_jax.settings import ConfigError

DIGITS = dict(name="moving_mnist", size=32, in_len=3, out_len=2)
DIGITS |= dict(train=4, validation=2, test=2)


def dataset_of(examples, weights):
    made = Data(
        name="made",
        description="made",
        train=examples,
        validation=examples,
        test=examples,
        loss_weights=weights,
    )
    return Dataset(made, ForecastFrames(metric=PixelError()))


def test_frames_are_inputs_and_targets():
    dataset = data.load(DIGITS)
    restored = to_restore(dataset, 8)
    assert isinstance(restored.task, RestoreFrames)
    before, now = dataset.data.test[1], restored.data.test[1]
    frames = np.concatenate([before["inputs"], before["targets"]])
    np.testing.assert_array_equal(now["inputs"], frames)
    np.testing.assert_array_equal(now["targets"], frames)
    assert len(restored.data.train) == 4
    assert restored.data.state is not None and dataset.data.state is not None
    state = restored.data.state()
    assert state.input_shape == state.target_shape == frames.shape
    assert state.examples == dataset.data.state().examples


def test_a_vq_vae_makes_no_forecast():
    shape = (3, 8, 8, 1)
    trained: Any = types.SimpleNamespace(
        model=models.create_model("vq_vae", shape, shape),
        config=ml_collections.ConfigDict(dict(model=dict(name="vq_vae"))),
        state=None,
    )
    with pytest.raises(ConfigError, match="'vq_vae' restores frames and makes no fore"):
        making.known_state(trained)


def test_channels_that_are_no_targets_are_left_out():
    example = dict(inputs=np.ones((3, 2, 2, 4)), targets=np.zeros((2, 2, 2, 1)))
    weights = np.stack([np.full((2, 2, 1), 1.5), np.full((2, 2, 1), 0.5)])
    restored = to_restore(dataset_of([example], weights), 8)
    frames = restored.data.test[0]["inputs"]
    assert frames.shape == (5, 2, 2, 1) and frames[:3].all() and not frames[3:].any()
    np.testing.assert_array_equal(restored.data.loss_weights, np.ones((1, 2, 2, 1)))


@pytest.mark.parametrize("both", [True, False])
def test_unknown_pixels_do_not_count(both):
    known = np.array([[True, False], [True, True]])[None, :, :, None]
    example = dict(
        inputs=np.ones((1, 2, 2, 1)),
        targets=np.full((1, 2, 2, 1), 9.0),
        observed=known,
    )
    if both:
        example["inputs_observed"] = ~known
    restored = to_restore(dataset_of([example], np.ones((1, 1, 1, 1))), 8)
    now = restored.data.test[0]
    want = np.concatenate([~known if both else np.ones_like(known), known])
    np.testing.assert_array_equal(now["observed"], want)
    assert now["inputs"][1, 0, 1, 0] == 0  # what it holds is not known
    assert "inputs_observed" not in now


def test_frames_that_are_targets_already_stay():
    dataset = data.load(
        dict(name="climate", in_len=3, out_len=0, twin_years=3, calendar=True)
    )
    restored = to_restore(dataset, 8).data
    np.testing.assert_array_equal(
        restored.test[0]["inputs"], dataset.data.test[0]["targets"]
    )
    assert dataclasses.is_dataclass(restored)
