"""Traces of steps: when they begin and end, and what is in the files."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from earthformer_jax.settings import ConfigError
from earthformer_jax.training.monitoring import trace


@pytest.fixture
def profiler(monkeypatch):
    """Notes calls in place of tracing."""
    calls = []
    monkeypatch.setattr(
        jax.profiler, "start_trace", lambda *a, **k: calls.append("start")
    )
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    return calls


def test_a_trace_covers_its_steps(profiler, tmp_path):
    found = []
    with trace.parse("2:3") as traced:
        for step in range(1, 6):
            traced.before(step, tmp_path)
            found.append(list(profiler))
            traced.after(step, jnp.ones(()))
    assert found == [[], ["start"], ["start"], *[["start", "stop"]] * 2]
    assert (tmp_path / trace.FOLDER).is_dir()


def test_a_training_that_ends_early_ends_its_trace(profiler, tmp_path):
    with pytest.raises(ValueError), trace.parse("2:30") as traced:
        traced.before(2, tmp_path)
        raise ValueError
    assert profiler == ["start", "stop"]


@pytest.mark.parametrize("text", ["", "5", "0:3", "4:3", "a:b", "1:2:3", "-1:3"])
def test_wrong_spans(text):
    with pytest.raises(ConfigError, match="expected the first and the last step"):
        trace.parse(text)


@pytest.mark.parametrize("step, total", [(2, 100), (5, 100), (0, 3)])
def test_steps_that_are_not_taken(step, total):
    traced = trace.parse("2:4")
    with pytest.raises(ConfigError, match=f"from step {step + 1} to {total}; expected"):
        traced.check(step, total)
    traced.check(1, 4)


def test_perfetto_can_read_it(tmp_path):
    function = jax.jit(lambda x: jnp.sin(x) @ x)
    x = jnp.ones((32, 32))
    function(x).block_until_ready()
    with trace.parse("1:1") as traced:
        traced.before(1, tmp_path)
        traced.after(1, function(x))
    (path,) = (tmp_path / trace.FOLDER).rglob("perfetto_trace.json.gz")
    with gzip.open(path) as file:
        events = json.load(file)["traceEvents"]
    assert any(event.get("ph") == "X" and event.get("dur", 0) > 0 for event in events)
    assert [*(tmp_path / trace.FOLDER).rglob("*.trace.json.gz")]
