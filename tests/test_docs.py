"""What the documents show can be done."""

import pathlib
import re
import sys

import jax
import numpy as np
import pytest

from earthformer_jax import models
from earthformer_jax.run.run import build
from earthformer_jax.training import loop

DOCS = pathlib.Path(__file__).parents[1] / "docs"


def blocks(file):
    """The Python blocks of a document."""
    return re.findall(r"```python\n(.*?)```", (DOCS / file).read_text(), re.DOTALL)


@pytest.fixture
def trend(tmp_path, monkeypatch):
    """The model of docs/models.md, added as it says: one file and one line."""
    code, line = blocks("models.md")
    (tmp_path / "trend_model.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    entry = eval(
        "{" + line.replace("earthformer_jax.models.trend", "trend_model") + "}"
    )
    monkeypatch.setitem(models._MODELS, "trend", entry["trend"])
    yield
    sys.modules.pop("trend_model", None)


class TestAddingAModel:
    def test_it_forecasts(self, trend):
        model = models.create_model("trend", (2, 3, 4, 2), (3, 3, 4, 1), slope=1.0)
        inputs = np.random.default_rng(0).normal(size=(1, 2, 3, 4, 2))
        variables = model.init(jax.random.key(0), inputs)
        change = inputs[:, 1:, ..., :1] - inputs[:, :1, ..., :1]
        want = (
            inputs[:, 1:, ..., :1] + np.array([1, 2, 3])[:, None, None, None] * change
        )
        np.testing.assert_allclose(model.apply(variables, inputs), want, rtol=1e-5)

    def test_configs_know_it_and_its_options(self, trend):
        from tests.run.test_configs import FILES, module

        config = module(FILES[0].with_name("climate.py")).get_config("test,trend")
        assert config.model.slope == 0.5
        dataset, model = build(config)
        loop.check_model(config, model, dataset.example())

    def test_wrong_options_are_refused(self, trend):
        with pytest.raises(ValueError, match="did you mean slope"):
            models.create_model("trend", (2, 3, 4, 1), (3, 3, 4, 1), slop=1.0)
        with pytest.raises(ValueError, match="two input frames"):
            models.create_model("trend", (1, 3, 4, 1), (3, 3, 4, 1))


@pytest.mark.slow
def test_recurrent_layers():
    space = {}
    exec(blocks("recurrent.md")[0], space)
    assert space["y"].shape == space["h"].shape == (2, 32, 32, 64)
