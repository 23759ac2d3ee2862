"""`model.remat=auto`: which name is chosen, what is said, and who uses it."""

import logging

import jax
import pytest

from earthformer_jax.run.parts import make_model
from earthformer_jax.run.planning import automatic
from earthformer_jax.run.run import Run
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training.checkpoint import Checkpoints
from tests.training import toy

GIB = 2**30
KEPT = dict(none=20 * GIB, dots=12 * GIB, blocks=2 * GIB)
PEAKS = dict(none=22 * GIB, dots=11 * GIB, blocks=5 * GIB)
UNET = dict(name="unet", features=(2,), center_features=2, remat="auto")


def choose(available, peaks=None):
    """A choice, and the names that were compiled for it."""
    compiled = []

    def peak(name):
        compiled.append(name)
        return (peaks or PEAKS)[name]

    return automatic.choose(available, KEPT.__getitem__, peak), compiled


def unet_run(tmp_path):
    """A run of a small U-Net on the toy's fields."""
    config = toy.config(train__micro_batch=8)
    with config.unlocked():
        config.model = UNET
    run = Run(config, tmp_path)
    run.dataset = toy.dataset()
    return run


@pytest.mark.parametrize(
    ("gib", "name", "compiled"),
    [
        (28, "none", ["none"]),
        (24, "dots", ["none", "dots"]),  # four fifths of it: 19.2
        (10, "blocks", ["dots", "blocks"]),  # half of what `none` keeps is more
        (7, "blocks", ["blocks"]),
        (1, "blocks", ["blocks"]),
    ],
)
def test_the_mildest_that_fits(gib, name, compiled):
    choice, tried = choose(gib * GIB)
    assert (choice.remat, tried) == (name, compiled)


def test_it_says_why():
    assert choose(10 * GIB)[0].words() == (
        "config.model.remat=auto is blocks here: none would keep at least 10.0 GiB, "
        "dots needs 11.0 GiB, blocks needs 5.0 GiB, and a step may take 8.0 GiB, 80% "
        "of what is available"
    )
    assert choose(GIB)[0].words().endswith("; not even the last one fits")


def test_a_training_has_the_model_that_was_chosen(tmp_path, monkeypatch, caplog):
    run = unet_run(tmp_path)
    shapes = (toy.dataset().data.example()["inputs"].shape,) * 2
    run._built = make_model(run.config, *shapes), {}
    assert run.model.remat == "none"
    chosen = automatic.Choice("dots", dict(none=2 * GIB, dots=GIB), {}, GIB)
    monkeypatch.setattr(automatic, "chosen_for", lambda config, dataset: chosen)
    with caplog.at_level(logging.INFO):
        assert run._trained_model.remat == "dots"
    assert chosen.words() in caplog.text
    assert run.config.model.remat == "auto"  # the next start chooses again
    caplog.clear()
    monkeypatch.setattr(Checkpoints, "steps", lambda _: [10**6])
    assert run._trained_model.remat == "none"  # no step is left to be taken
    assert not caplog.text


@pytest.mark.slow
def test_of_compiled_steps(tmp_path, monkeypatch):
    run, count = unet_run(tmp_path), len(jax.local_devices())
    choice = automatic.chosen_for(run.config, run.dataset)
    assert choice.remat == "none" and choice.peaks["none"] > 0
    monkeypatch.setattr(mesh_lib, "host_bytes", lambda: count)
    choice = automatic.chosen_for(run.config, run.dataset)
    assert choice.remat == "blocks" and [*choice.skipped] == ["none", "dots"]
