"""A training that is continued with another number of steps."""

import json
import logging

import pytest

from earthformer_jax.training.optimizer import warmup_cosine
from tests.training.test_loop import assert_same_run, metrics, train

BASE = dict(
    train__simulated_steps=0,
    train__simulated_fraction=0.0,
    train__validate_every=4,
    train__log_every=1,
)
CONSTANT = dict(optim__warmup_fraction=0.0, optim__min_lr_ratio=1.0)


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "earthformer_jax")
    return caplog


def test_equals_a_longer_training(tmp_path, said):
    """With a constant learning rate: weights, averages, optimiser, data and record."""
    assert train(tmp_path / "whole", train__steps=8, **BASE, **CONSTANT)
    assert train(tmp_path / "parts", train__steps=4, **BASE, **CONSTANT)
    assert "instead" not in said.text
    assert train(tmp_path / "parts", train__steps=8, **BASE, **CONSTANT)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    saved = json.loads((tmp_path / "parts" / "config.json").read_text())
    assert saved["train"]["steps"] == 8
    assert "has 8 steps in all, and not 4 as before" in said.text


def test_the_schedule_is_that_of_the_new_length(tmp_path, said):
    for steps in (4, 6):
        assert train(tmp_path, train__steps=steps, **BASE)
    rates = {m["step"]: m["train/lr"] for m in metrics(tmp_path) if "train/lr" in m}
    for total, steps in ((4, range(1, 5)), (6, range(5, 7))):
        schedule = warmup_cosine(1e-2, total)
        for step in steps:
            assert rates[step] == pytest.approx(float(schedule(step - 1)), rel=1e-5)
    rate = float(warmup_cosine(1e-2, 6)(4))
    assert f"that of the new schedule from here on, {rate:.3g} at first" in said.text
    said.clear()
    for steps in (6, 4):  # done already, and its config stays
        assert train(tmp_path, train__steps=steps, **BASE)
    assert said.text.count("complete already") == 2 and "as before" not in said.text
    assert json.loads((tmp_path / "config.json").read_text())["train"]["steps"] == 6
