"""The choice among the ways to compute attention."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops import fastest_attention as lib
from earthformer_jax.ops.softmax_attention import softmax_attention

CALL = lib.Call((1, 3, 2, 4, 8), 6, 8, "float32", True, False, False)


@pytest.fixture
def two_ways(monkeypatch, tmp_path):
    """As if a CPU had a choice, with a cache folder of its own."""
    monkeypatch.setattr(lib, "ways", lambda *_: ["xla", "library"])
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    lib.fastest.cache_clear()
    yield tmp_path / lib.FILE
    lib.fastest.cache_clear()
    jax.config.update("jax_compilation_cache_dir", before)


def use_times(monkeypatch, **times):
    """Lets measurements find these; returns the calls that were measured."""
    calls = []

    def measure(call, names):
        calls.append(call)
        return {name: times[name] for name in names if name in times}

    monkeypatch.setattr(lib, "measure", measure)
    return calls


def arrays(dtype=jnp.float32):
    random = np.random.default_rng(0)
    shapes = dict(
        query=(8, 3, 2, 4, 8),
        key=(8, 3, 2, 6, 8),
        value=(8, 3, 2, 6, 8),
        bias=(2, 4, 6),
    )
    return {
        name: jnp.asarray(random.normal(size=s), dtype) for name, s in shapes.items()
    }


@pytest.mark.parametrize(
    "platform, devices, processes, more, want",
    [
        ("cpu", 1, 1, {}, ["xla"]),
        ("tpu", 4, 1, {}, ["xla"]),
        ("gpu", 1, 1, {}, ["xla", "library", "pallas"]),
        ("gpu", 1, 1, dict(dropped=True), ["xla", "pallas"]),
        ("gpu", 1, 1, dict(dtype="bfloat16"), ["xla", "library", "cudnn", "pallas"]),
        ("gpu", 8, 1, dict(dtype="float16"), ["xla", "library", "cudnn"]),
        ("gpu", 8, 1, dict(dropped=True), ["xla"]),
        ("gpu", 8, 2, {}, ["xla"]),
    ],
)
def test_ways(platform, devices, processes, more, want):
    call = dataclasses.replace(CALL, **more)
    assert lib.ways(call, platform, devices, processes) == want


def test_nothing_is_measured_where_there_is_no_choice(monkeypatch):
    lib.fastest.cache_clear()
    calls = use_times(monkeypatch, xla=1.0)
    assert lib.fastest(CALL) == "xla" and not calls


def test_the_fastest_is_chosen_once_and_kept(monkeypatch, two_ways):
    calls = use_times(monkeypatch, xla=2.0, library=1.0)
    other = dataclasses.replace(CALL, keys=7)
    assert [lib.fastest(c) for c in (CALL, CALL, other)] == ["library"] * 3
    assert calls == [CALL, other]
    # Another process finds the choices of this one, whatever it would measure.
    lib.fastest.cache_clear()
    calls = use_times(monkeypatch, xla=1.0, library=2.0)
    assert lib.fastest(CALL) == "library" and not calls
    assert sorted(json.loads(two_ways.read_text()).values()) == ["library"] * 2
    assert [p.name for p in two_ways.parent.iterdir()] == [lib.FILE]


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"a": "b"}'])
def test_choices_that_cannot_be_read_are_made_again(monkeypatch, two_ways, text):
    two_ways.write_text(text)
    use_times(monkeypatch, xla=2.0, library=1.0)
    assert lib.fastest(CALL) == "library"
    assert "library" in json.loads(two_ways.read_text()).values()


def test_without_a_cache_folder_nothing_is_kept(monkeypatch, two_ways):
    jax.config.update("jax_compilation_cache_dir", None)
    use_times(monkeypatch, library=1.0)
    assert lib.fastest(CALL) == "library"
    assert not two_ways.exists()


def test_if_nothing_can_be_measured_xla_serves(monkeypatch, two_ways):
    use_times(monkeypatch)
    assert lib.fastest(CALL) == "xla"


@pytest.mark.parametrize("more", [{}, dict(masked=True), dict(dtype="bfloat16")])
def test_measure(more):
    times = lib.measure(dataclasses.replace(CALL, **more), ["xla", "library"])
    assert set(times) == {"xla", "library"} and min(times.values()) > 0


def test_what_cannot_compute_a_call_is_left_out():
    dropped = dataclasses.replace(CALL, dropped=True)
    assert set(lib.measure(dropped, ["xla", "library", "cudnn"])) == {"xla"}


def test_inside_a_program_and_its_gradient(two_ways):
    """Measured while the program is traced, and no part of it."""

    def loss(function):
        return lambda found: jnp.sum(jnp.sin(function(**found)))

    have, want = (
        jax.jit(jax.value_and_grad(loss(f)))(arrays())
        for f in (lib.fastest_attention, softmax_attention)
    )
    for x, y in zip(*map(jax.tree.leaves, (have, want)), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5 * float(jnp.abs(y).max()))
    (entry,) = json.loads(two_ways.read_text())
    examples = 8 // jax.device_count()
    assert f"(({examples}, 3, 2, 4, 8), 6, 8, 'float32', True, False, False)" in entry
