"""A progress is taken from a checkpoint only as a whole."""

import dataclasses
import re

import pytest

from earthformer_jax.training.disk.progress import Progress, from_metadata

PROGRESS = Progress(
    step=7,
    batches={"next_index": 7},
    best_step=5,
    best_score=0.25,
    validations_since_best=1,
    unlogged=[{"step": 7, "loss": 0.5}],
)
FIELDS = dataclasses.asdict(PROGRESS)


def test_round_trip():
    assert from_metadata(FIELDS, 7) == PROGRESS
    assert from_metadata(FIELDS | {"something": "else"}, 7) == PROGRESS


def test_checkpoints_of_earlier_versions():
    fields = {n: v for n, v in FIELDS.items() if n != "validation_due"}
    assert from_metadata(fields, 7) == PROGRESS


@pytest.mark.parametrize("name", [n for n in FIELDS if n != "validation_due"])
def test_every_field_is_needed(name):
    fields = {n: v for n, v in FIELDS.items() if n != name}
    with pytest.raises(ValueError, match=f"no {name}"):
        from_metadata(fields, 7)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", "7"),
        ("step", -7),
        ("step", True),
        ("batches", [7]),
        ("best_step", 5.5),
        ("best_score", float("nan")),
        ("best_score", "0.25"),
        ("validations_since_best", None),
        ("unlogged", {"step": 7}),
        ("unlogged", [7]),
        ("validation_due", 0),
    ],
)
def test_impossible_values(name, value):
    with pytest.raises(ValueError, match=re.escape(f"{name}={value!r}")):
        from_metadata(FIELDS | {name: value}, 7)


@pytest.mark.parametrize("fields", [None, [], "x"])
def test_no_progress_at_all(fields):
    with pytest.raises(ValueError, match="no progress"):
        from_metadata(fields, 7)


def test_that_of_another_step():
    with pytest.raises(ValueError, match="that of step 7"):
        from_metadata(FIELDS, 14)
