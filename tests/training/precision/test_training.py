"""Trainings in float16, which overflow, skip steps and recover."""

import flax.linen as nn
import jax.numpy as jnp
import pytest

from tests.training.test_loop import assert_same_run, final_state, metrics, train

FLOAT16 = dict(
    precision=dict(compute="float16", loss_scale=2.0**24),
    optim__warmup_fraction=0.0,
    optim__min_lr_ratio=1.0,
    train__simulated_steps=0,
    train__simulated_fraction=0.0,
    train__validate_every=4,
    train__log_every=1,
)


class HalfModel(nn.Module):
    """A float16 map of all values to all values."""

    @nn.compact
    def __call__(self, inputs, *, train=False):
        x = inputs.reshape(len(inputs), -1)
        x = nn.Dense(x.shape[1], dtype=jnp.float16)(x)
        return x.astype(jnp.float32).reshape(inputs.shape)


@pytest.mark.slow
def test_overflow_is_skipped_counted_and_kept_over_a_restart(tmp_path):
    for name, lengths in (("whole", [8]), ("parts", [4, 8])):
        for steps in lengths:
            assert train(
                tmp_path / name, model=HalfModel(), train__steps=steps, **FLOAT16
            )
    rows = [row for row in metrics(tmp_path / "whole") if "train/lr" in row]
    skipped = [row["train/skipped"] for row in rows]
    overflows = int(sum(skipped))
    assert 2 < overflows < 8 and skipped == sorted(skipped, reverse=True)
    scales = [row["train/loss_scale"] for row in rows]
    assert scales[:overflows] == [2.0**24 / 2**n for n in range(overflows)]
    assert all(("train/loss" in row) != bool(row["train/skipped"]) for row in rows)
    state = final_state(tmp_path / "whole")
    assert state["loss_scale"]["skipped"] == overflows
    # Adam has counted the other steps only.
    counts = {int(x["count"]) for x in state["opt_state"] if x and "count" in x}
    assert counts == {8 - overflows}
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
