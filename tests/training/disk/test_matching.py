"""Arrays of checkpoints against those that are wanted."""

import jax
import pytest

from earthformer_jax.training.disk import matching


def tree(kind="float32", moments="float32", shape=(2, 3), **more):
    array = jax.ShapeDtypeStruct
    return {
        "params": {"kernel": array(shape, kind)},
        "opt_state": [{"mu": array(shape, moments), "count": array((), "int32")}],
    } | more


def test_equal_trees_match():
    assert not matching.mismatch(tree(), tree())
    assert not matching.is_narrower(tree(), tree())


def test_moments_of_earlier_versions_are_widened():
    old, new = tree("bfloat16", "bfloat16"), tree("bfloat16", "float32")
    assert not matching.mismatch(old, new) and matching.is_narrower(old, new)
    assert "belongs to another optimiser; 1 array differs:" in matching.mismatch(
        new, old
    )


@pytest.mark.parametrize(
    "saved, text",
    [
        (tree("bfloat16"), "params/kernel: bfloat16 (2, 3) there, float32 (2, 3) here"),
        (tree(moments="float16"), "opt_state/0/mu: float16 (2, 3) there"),
        (tree(shape=(3, 2)), "belongs to another model; 1 array differs"),
    ],
)
def test_others_are_named(saved, text):
    assert text in matching.mismatch(saved, tree())


def test_missing_and_additional_arrays_are_named():
    more = {"step": jax.ShapeDtypeStruct((), "int32")}
    text = matching.mismatch(tree(**more), tree())
    assert "  step: int32 () there, absent here" in text
    assert "  step: absent there, int32 () here" in matching.mismatch(
        tree(), tree(**more)
    )
