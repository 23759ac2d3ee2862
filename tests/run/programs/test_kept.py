"""Functions whose compiled programs are kept."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax import models
from earthformer_jax.models.persistence import Persistence
from earthformer_jax.ops.derivatives import forward_mode
from earthformer_jax.run.programs import kept
from earthformer_jax.run.programs.store import Store
from earthformer_jax.run.trained import TrainedModel
from earthformer_jax.training.state import abstract_variables
from tests.training import toy

MODEL = Persistence(toy.SHAPE, toy.SHAPE)
PARAMS = {"w": jnp.linspace(0.0, 1.0, 9).reshape(3, 3)}
X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "programs")


def layer(params, x):
    return jnp.tanh(x @ params["w"]).cumsum(axis=0)


def compiled(store, function=layer, model=MODEL, name="layer"):
    return kept.Programs(store).compiled(model, name, function)


def not_traced(params, x):
    raise AssertionError("traced")


def files(store):
    return sorted(store.folder.glob("*")) if store.folder.exists() else []


def test_it_is_found_without_tracing(store):
    first, second = compiled(store), compiled(store, not_traced)
    want = np.asarray(jax.jit(layer)(PARAMS, X))
    for function in (first, first, second, second):
        np.testing.assert_array_equal(function(PARAMS, X), want)
    other = {"w": 2 * PARAMS["w"]}  # weights are arguments
    np.testing.assert_array_equal(second(other, X), jax.jit(layer)(other, X))
    assert len(files(store)) == 1


def test_what_differs_is_compiled_on_its_own(store):
    compiled(store)(PARAMS, X)
    another = Persistence(toy.SHAPE, (2, *toy.SHAPE[1:]))
    for function, arguments in (
        (compiled(store), (PARAMS, X[:1])),
        (compiled(store), (PARAMS, X.astype(np.int32))),
        (compiled(store, model=another), (PARAMS, X)),
        (compiled(store, name="other"), (PARAMS, X)),
    ):
        before = len(files(store))
        np.testing.assert_array_equal(function(*arguments), layer(*arguments))
        assert len(files(store)) == before + 1


@pytest.mark.parametrize("content", [b"", b"not a program", "of other arguments"])
def test_what_cannot_be_used_is_made_again_with_one_line(store, caplog, content):
    function = compiled(store)
    function(PARAMS, X)
    (name,) = [path.stem for path in files(store)]
    if isinstance(content, str):
        compiled(store, lambda p, x: x, name="other")(PARAMS, X[:1])
        (other,) = {path.stem for path in files(store)} - {name}
        content = store.read(other)
    store.write(name, content)
    found = compiled(store)(PARAMS, X)
    np.testing.assert_array_equal(found, function(PARAMS, X))
    assert len(caplog.messages) == 1 and "is made again" in caplog.text
    np.testing.assert_array_equal(compiled(store, not_traced)(PARAMS, X), found)


def test_in_other_functions_it_is_an_ordinary_one(store):
    function = compiled(store)
    slope = jax.grad(lambda x: function(PARAMS, x).sum())(X)
    np.testing.assert_allclose(slope, jax.grad(lambda x: layer(PARAMS, x).sum())(X))
    batch = jax.vmap(function, in_axes=(None, 0))(PARAMS, np.stack([X, X]))
    np.testing.assert_allclose(batch[1], layer(PARAMS, X), rtol=1e-6)
    with forward_mode():
        function(PARAMS, X)
    assert files(store) == []


def test_on_another_device_it_is_compiled_there(store):
    if jax.device_count() == 1:
        pytest.skip("one device")
    there = jax.device_put((PARAMS, X), jax.devices()[1])
    assert compiled(store)(*there).devices() == {jax.devices()[1]}
    assert files(store) == []


def test_models_of_others_are_not_kept(store):
    function = compiled(store, model=toy.ToyModel())
    np.testing.assert_allclose(function(PARAMS, X), layer(PARAMS, X), rtol=1e-6)
    assert files(store) == []


def test_programs_of_the_cache_of_jax_are_compiled_anew(store, tmp_path):
    def function(params, x):  # of several parts, which the cache of JAX keeps apart
        return jnp.sort(jnp.tanh(x @ params["w"]), axis=0).cumsum(axis=1)

    names = ("compilation_cache_dir", "persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, f"jax_{name}") for name in names}
    values = str(tmp_path / "jax"), 0.0
    kept.compilation_cache.reset_cache()
    for name, value in zip(names, values, strict=True):
        jax.config.update(f"jax_{name}", value)
    try:
        jax.jit(function).lower(PARAMS, X).compile()  # fills it
        assert list((tmp_path / "jax").iterdir())
        found = compiled(store, function)(PARAMS, X)
        assert jax.config.jax_enable_compilation_cache
    finally:
        for name, value in before.items():
            jax.config.update(f"jax_{name}", value)
        kept.compilation_cache.reset_cache()
    np.testing.assert_array_equal(compiled(store, not_traced)(PARAMS, X), found)


def test_variables_are_known_without_tracing(store):
    programs, shape = kept.Programs(store), (4, 16, 16, 1)
    model = models.create_model("unet", input_shape=shape, target_shape=shape)
    want = abstract_variables(model, shape)
    assert programs.variables(model, shape, lambda: want) is want
    found = programs.variables(model, shape, lambda: pytest.fail("traced"))
    assert found == want
    nothing = {"params": {}, "batch_stats": {"a": {}}}
    programs.variables(MODEL, shape, lambda: nothing)
    assert programs.variables(MODEL, shape, lambda: pytest.fail("traced")) == nothing


def test_a_trained_model_forecasts_with_them(store, monkeypatch):
    trained = TrainedModel(
        model=MODEL,
        variables={"params": {}},
        config=toy.config(),
        state=None,
        open_dataset=toy.dataset,
        step=0,
        complete=True,
    )
    inputs = np.random.default_rng(0).normal(size=(2, *toy.SHAPE)).astype(np.float32)
    quick = [dataclasses.replace(trained, programs=kept.Programs(store)) for _ in "12"]
    want = trained(inputs)
    np.testing.assert_array_equal(quick[0](inputs), want)
    monkeypatch.setattr(kept.Kept, "_compile", not_traced)
    np.testing.assert_array_equal(quick[1](inputs), want)


class TestFind:
    @pytest.fixture(autouse=True)
    def restore(self):
        before = jax.config.jax_compilation_cache_dir
        yield
        jax.config.update("jax_compilation_cache_dir", before)
        jax.config.update("jax_enable_compilation_cache", True)

    def test_beside_the_programs_of_jax(self, tmp_path):
        jax.config.update("jax_compilation_cache_dir", str(tmp_path))
        found = kept.find()
        assert found is not None
        found.compiled(MODEL, "layer", layer)(PARAMS, X)
        assert len(list((tmp_path / kept.FOLDER).iterdir())) == 1

    @pytest.mark.parametrize("folder", [None, "gs://bucket/cache"])
    def test_nowhere_without_a_folder(self, folder):
        jax.config.update("jax_compilation_cache_dir", folder)
        assert kept.find() is None

    def test_nowhere_if_nothing_is_to_be_kept(self, tmp_path):
        jax.config.update("jax_compilation_cache_dir", str(tmp_path))
        jax.config.update("jax_enable_compilation_cache", False)
        assert kept.find() is None


@pytest.mark.slow
def test_another_process_uses_them(tmp_path):
    program = f"""
import pathlib
import jax.numpy as jnp
from earthformer_jax.models.persistence import Persistence
from earthformer_jax.run.programs import kept
from earthformer_jax.run.programs.store import Store

def layer(w, x):
    print("traced")
    return jnp.sort(jnp.tanh(x @ w), axis=0).cumsum(axis=1)

programs = kept.Programs(Store(pathlib.Path({str(tmp_path)!r})))
model = Persistence((1, 2, 2, 1), (1, 2, 2, 1))
x = jnp.linspace(-1, 1, 16).reshape(4, 4)
print(programs.compiled(model, "layer", layer)(x, x).tobytes().hex())
"""
    first, second = (
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    )
    assert first == ["traced", *second]
