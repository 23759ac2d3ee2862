"""A run: what it rejects before anything is written, and what it does only once."""

import collections
import json

import pytest

from earthformer_jax import data, models, reports
from earthformer_jax.run import run as run_lib
from earthformer_jax.run.run import Run
from earthformer_jax.settings import ConfigError
from tests.training import toy


@pytest.fixture
def made(monkeypatch):
    """The package knows a toy's data and model; counts what is made and checked."""
    counts = collections.Counter()

    def count(module, name, function):
        def counted(*arguments, **options):
            counts[module.__name__, name] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

    count(data, "load", lambda config, seed: toy.dataset())
    count(models, "create_model", lambda name, **options: toy.ToyModel())
    count(reports, "check", lambda task, model: None)
    count(reports, "report", lambda *_, about: {"forecasts": {}})
    for check in ("check_model", "check_dataset"):
        count(run_lib, check, getattr(run_lib, check))
    count(run_lib.config_lib, "check", run_lib.config_lib.check)
    return counts


def run(workdir, **changes):
    return Run(
        toy.config(**(dict(train__micro_batch=8, train__steps=5) | changes)), workdir
    )


def test_everything_is_made_and_checked_once(made, tmp_path):
    this = run(tmp_path)
    assert this.train()
    trained = this.load()
    assert this.evaluate() == {"forecasts": {}}
    assert trained.model is this.model and trained.data is this.dataset.data
    assert set(made.values()) == {1} and len(made) == 7


def test_the_run_of_a_workdir(made, tmp_path):
    run(tmp_path, train__log_every=3).train()
    again = Run.of(str(tmp_path))
    assert again.config.train.log_every == 3
    assert again.load().step == 5


def test_a_workdir_from_before_losses_could_be_chosen(made, tmp_path):
    run(tmp_path).train()
    file = tmp_path / "config.json"
    saved = json.loads(file.read_text())
    saved["train"] = {k: v for k, v in saved["train"].items() if "loss" not in k}
    file.write_text(json.dumps(saved))
    longer = run(tmp_path, train__steps=7)
    assert longer.train() and longer.load().step == 7
    with pytest.raises(ConfigError, match='train.loss: "", now "mae"'):
        run(tmp_path, train__loss="mae").train()


class TestRefusals:
    """Each wrong input: a message, and nothing written."""

    def refused(self, workdir, message, **changes):
        with pytest.raises(ConfigError, match=message):
            run(workdir / "new", **changes).train()
        assert not (workdir / "new").exists()

    def test_impossible_value(self, made, tmp_path):
        self.refused(tmp_path, "config.optim.lr=-1.0", optim__lr=-1.0)
        assert ("earthformer_jax.data", "load") not in made

    def test_devices_that_cannot_share(self, made, tmp_path):
        parts = "space=3 times config.parallel.model=1 does not divide .* 4"
        self.refused(tmp_path, parts, parallel=dict(space=3))
        shares = "micro_batch=2 .* by 4 devices, as config.parallel.backend='pmap'"
        change = dict(train__micro_batch=2, parallel=dict(backend="pmap"))
        self.refused(tmp_path, shares, **change)
        assert ("earthformer_jax.data", "load") not in made
        with pytest.raises(ConfigError, match=parts):
            run(tmp_path, parallel=dict(space=3)).evaluate()

    def test_data_without_what_is_asked_for(self, made, tmp_path):
        message = "monitor='skill' is not a score of 'toy'"
        self.refused(tmp_path, message, train__monitor="skill")

    def test_loss_that_the_model_cannot_be_trained_with(self, made, tmp_path):
        message = "config.train.loss='afcrps': the model is trained with one forecast"
        self.refused(tmp_path, message, train__loss="afcrps")

    def test_model_of_another_shape(self, made, tmp_path, monkeypatch):
        class Wrong(toy.ToyModel):
            def __call__(self, inputs, *, train=False):
                return super().__call__(inputs, train=train)[:, :2]

        monkeypatch.setattr(models, "create_model", lambda *_, **__: Wrong())
        self.refused(tmp_path, r"forecasts \(2, 4, 4, 1\) but the targets are")

    def test_model_that_cannot_be_built(self, made, tmp_path, monkeypatch):
        wrong = toy.ToyModel(features=-1)
        monkeypatch.setattr(models, "create_model", lambda *_, **__: wrong)
        self.refused(tmp_path, "model 'toy': ")

    def test_test_split_without_examples(self, made, tmp_path, monkeypatch):
        this = run(tmp_path)
        this.train()
        empty = toy.dataset(test=toy.ToySource(0))
        monkeypatch.setattr(data, "load", lambda config, seed: empty)
        with pytest.raises(ConfigError, match="the test split of 'toy' is empty"):
            Run.of(tmp_path).evaluate()
        assert this.load().step == 5
