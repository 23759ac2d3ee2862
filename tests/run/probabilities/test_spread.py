import dataclasses
import logging
from typing import Any

import ml_collections
import numpy as np
import pytest

from earthformer_jax.data.dataset import Data
from earthformer_jax.data.leaks import Spans
from earthformer_jax.data.source import Selected
from earthformer_jax.reports.scoring import write_json
from earthformer_jax.run.probabilities import spread
from earthformer_jax.run.trained import TrainedModel
from earthformer_jax.settings import ConfigError

SHAPE, MEMBERS = (2, 3, 4, 1), 24
FACTORS = [[[[0.5]]], [[[2.0]]]]


@dataclasses.dataclass(frozen=True)
class Source:
    """Noise of size 1; a test split would give another spread."""

    size: float = 1.0

    def __len__(self):
        return 150

    def __getitem__(self, i):
        field = self.size * np.random.default_rng(i).normal(size=SHAPE)
        return {"inputs": np.zeros(SHAPE, np.float32), "targets": np.float32(field)}


def members(batch):
    """Twice as far apart as they should be at the first lead, half as far later."""
    size = np.array([2.0, 0.5])[:, None, None, None]
    shape = (MEMBERS, *np.shape(batch["targets"]))
    seed = int(1e6 * abs(batch["targets"].sum()))
    drawn = size * np.random.default_rng(seed).normal(size=shape)
    return drawn.astype(np.float32)


def model(step=7, eval_spread="fitted", checkpoint="best", stats=None) -> TrainedModel:
    ones = np.ones(SHAPE, np.float32)
    config = {"eval": {"spread": eval_spread, "checkpoint": checkpoint}}
    nothing: Any = None
    return TrainedModel(
        model=nothing,
        variables={"params": {}, "batch_stats": stats or {"spread": ones}},
        config=ml_collections.ConfigDict(config),
        state=None,
        open_dataset=nothing,
        step=step,
        complete=True,
    )


def kept(folder, **more):
    folder.mkdir(exist_ok=True)
    found = {"step": 7, "checkpoint": "best", "factors": FACTORS} | more
    write_json(folder / spread.FILE, found)


def data(examples=Source()):
    return Data(
        name="noise",
        description="noise",
        train=Source(9.0),
        validation=examples,
        test=Source(5.0),
        loss_weights=np.ones((1, 1, 1, 1)),
    )


def test_factors_are_those_of_the_validation_split():
    found = spread.fit(members, data(), 10)
    means = np.mean(found["factors"], axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(means, FACTORS, rtol=0.15)
    assert found["crps"][found["by"]] < found["crps"]["as_trained"]
    assert found["validation_examples"] == 150


def test_cells_have_their_own_factors_if_other_examples_say_so():
    """The members are right at the first row, and too wide at the second one."""

    def uneven(batch):
        return members(batch) * np.float32([[[0.5]], [[2.0]], [[0.5]]])

    found = spread.fit(uneven, data(), 10)
    by = found["by"]
    assert by.startswith("cell") and found["crps"][by] < found["crps"]["frame"] - 0.04
    rows = np.mean(found["factors"], axis=(2, 3))
    # Drawn a little to their frames.
    np.testing.assert_allclose(rows[0], [1.0, 0.25, 1.0], rtol=0.35)
    np.testing.assert_allclose(rows[1], [4.0, 1.0, 4.0], rtol=0.15)


@pytest.mark.parametrize(
    ("source", "most_cells"), [(Selected(Source(), np.arange(9)), 12), (Source(), 11)]
)
def test_few_examples_and_large_fields_have_factors_of_frames(
    monkeypatch, source, most_cells
):
    monkeypatch.setattr(spread, "MOST_CELLS", most_cells)
    found = spread.fit(members, data(source), 10)
    assert found["by"] == "frame" and np.shape(found["factors"]) == (2, 1, 1, 1)
    assert set(found["crps"]) == {"as_trained", "frame"}


def test_windows_that_share_frames_are_few_examples():
    """The windows of five years say too little about single cells."""
    first = np.arange(48)
    assert spread.disjoint(None, 48) == 48
    assert spread.disjoint(Spans(first, first + 12, first + 25), 48) == 2
    assert spread.disjoint(Spans(first, first, first), 48) == 48
    place = first % 2
    assert spread.disjoint(Spans(first, first + 12, first + 25, place), 48) == 4
    spans = {
        name: Spans(*[np.full(150, 9 * i)] * 3)
        for i, name in enumerate(("train", "validation", "test"))
    }
    overlapping = dataclasses.replace(data(), spans=spans)
    assert spread.fit(members, overlapping, 10)["by"] == "frame"


def test_nothing_is_fitted_where_nothing_was_observed():
    nowhere = dataclasses.replace(data(), loss_weights=np.zeros((1, 1, 1, 1)))
    found = spread.fit(members, nowhere, 10)
    assert found["by"] == "as_trained" and found["crps"] == {}
    assert np.all(np.asarray(found["factors"]) == 1)


def test_few_examples_are_forecast_once():
    calls = []

    def counted(batch):
        calls.append(len(batch["targets"]))
        return members(batch)

    spread.fit(counted, data(Selected(Source(), np.arange(9))), 3)
    assert calls == [3, 3, 3]


def test_reliable_members_stay_as_they_are_or_nearly():
    def reliable(batch):
        return members(batch) * np.float32([0.5, 2])[:, None, None, None]

    found = spread.fit(reliable, data(), 10)
    assert np.asarray(found["factors"]) == pytest.approx(1, abs=0.15)


def test_the_fitted_spread_is_that_of_the_model(tmp_path):
    kept(tmp_path)
    applied = spread.apply(model(), tmp_path).variables
    assert applied["batch_stats"]["spread"].shape == SHAPE
    assert spread.used(applied) == [[0.5], [2.0]]


def test_factors_of_cells_are_those_of_the_model(tmp_path):
    factors = np.random.default_rng(0).uniform(size=SHAPE).round(4)
    kept(tmp_path, factors=factors.tolist())
    applied = spread.apply(model(), tmp_path).variables["batch_stats"]["spread"]
    np.testing.assert_allclose(applied, factors, rtol=1e-6)


@pytest.mark.parametrize(
    ("trained", "why"),
    [
        (model(eval_spread="as_trained"), ""),
        (model(step=8), "no spread fitted to step 8"),
    ],
)
def test_another_checkpoint_or_wish_keeps_that_of_the_training(
    tmp_path, caplog, trained, why
):
    kept(tmp_path)
    with caplog.at_level(logging.INFO):
        assert spread.apply(trained, tmp_path) is trained
    assert why in caplog.text


def test_a_workdir_without_the_file_keeps_that_of_the_training(tmp_path):
    assert spread.apply(model(), tmp_path).variables["batch_stats"]["spread"].all() == 1
    (tmp_path / spread.FILE).write_text("{")
    assert spread.read(tmp_path) is None


def test_a_model_without_spread_is_left_alone(tmp_path):
    kept(tmp_path)
    plain = model(stats={"mean": np.ones(3)})
    assert spread.apply(plain, tmp_path) is plain
    assert spread.used(plain.variables) is None


def test_factors_of_another_model_are_refused(tmp_path):
    kept(tmp_path, factors=[[[[1.0]]]])
    with pytest.raises(ConfigError, match=r"factors of the shape \[1, 1, 1, 1\]"):
        spread.apply(model(), tmp_path)
