"""A run with a model that draws: what is fitted after training, and scored."""

import json

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.models.probabilistic import NoiseOptions, Probabilistic
from earthformer_jax.run import api
from earthformer_jax.run.parts import example_shapes, load_data
from earthformer_jax.run.probabilities import spread
from earthformer_jax.run.run import Run
from tests.data import cube_files

pytestmark = pytest.mark.slow  # trains and scores


class Normed(nn.Module):
    """Persistence plus a little of a norm, which noise can change."""

    def check(self):
        """Accepts everything."""

    @nn.compact
    def __call__(self, inputs, *, train=False):
        x = nn.LayerNorm()(inputs[..., :2])
        return jnp.repeat(0.9 * inputs[:, -1:, ..., :2] + 0.1 * x[:, -1:], 2, axis=1)


def parts(config):
    data = load_data(config)
    options = NoiseOptions(noise=3, noise_in="all", members=3)
    shapes = example_shapes(config, data)
    return data, Probabilistic(*shapes, Normed(), options)  # pyright: ignore


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probabilities")
    cube_files.write(cube_files.dataset(40), folder / "days.nc")
    changes = {
        "data.path": str(folder / "days.nc"),
        "eval.members": 5,
        "train.steps": 2,
    }
    config = api.load_config("custom:test,persistence", changes)
    trained = Run(config, folder / "run", parts)
    assert trained.train()
    return trained


def test_training_fits_the_spread_and_loading_uses_it(run):
    found = spread.read(run.workdir)
    assert found is not None
    assert found["members"] == 3 and found["step"] == run.load().step
    assert np.shape(found["factors"])[::3] == run.load().target_shape[::3]
    means = np.mean(found["factors"], axis=(1, 2))
    assert np.asarray(spread.used(run.load().variables)) == pytest.approx(means)
    assert np.all(np.asarray(spread.used(run._restored().variables)) == 1)


def test_it_is_fitted_once_for_a_checkpoint(run):
    before = (run.workdir / spread.FILE).stat().st_mtime_ns
    assert run.train()
    assert (run.workdir / spread.FILE).stat().st_mtime_ns == before


def test_evaluation_adds_probabilities(run):
    scores = run.evaluate()
    about = scores["probabilities"]["about"]
    assert about["members"] == 5
    assert about["spread"] == spread.used(run.load().variables)
    forecasts = scores["probabilities"]["views"]["field"]["forecasts"]
    assert {"model", "persistence", "model_dressed"} <= set(forecasts)
    kept = json.loads((run.workdir / "scores.json").read_text())
    assert kept["probabilities"]["about"]["members"] == 5
    assert (run.workdir / "figures" / "calibration.png").exists()
