"""What memory cannot hold is refused before it is made, with remedies that work."""

import functools
import tracemalloc

import pytest

from earthformer_jax import models
from earthformer_jax.run import api, memory
from earthformer_jax.run.parts import make_model
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import loop, mesh, settings, state
from tests.training import toy

GIB = 2**30
SHAPES = (10, 1024, 1024, 1), (5, 1024, 1024, 1)


def set_memory(monkeypatch, size):
    """Makes the machine one of this many bytes."""
    for module in (memory, mesh):
        monkeypatch.setattr(module, "host_bytes", lambda: size)


@pytest.fixture
def six(monkeypatch):
    """A machine with 6 GiB."""
    set_memory(monkeypatch, 6 * GIB)


def test_a_large_field(six):
    config = api.load_config("custom:quick")
    model = make_model(config, *SHAPES)
    tracemalloc.start()
    with pytest.raises(ConfigError, match="163,840 positions .* 6.0 GiB") as error:
        memory.check_attention(config, model)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()
    for remedy in (
        "coarsen the fields with config.data.space_step",
        "cut out a config.data.region",
        "use config.model.enc_pattern=axial with config.model.dec_self_pattern=axial",
    ):
        assert remedy in str(error.value)


def test_remedies(six):
    """What the message says to do is accepted."""
    config = api.load_config("custom:quick")
    with pytest.raises(ConfigError) as error:
        memory.check_attention(config, make_model(config, *SHAPES), "train.micro_batch")
    advice = (
        "use config.model.enc_pattern=axial with config.model.dec_self_pattern=axial "
        "with config.train.micro_batch=4"
    )
    assert advice in str(error.value)
    changes = {"enc_pattern": "axial", "dec_self_pattern": "axial"}
    config = api.load_config("custom:quick", model=changes, train={"micro_batch": 4})
    memory.check_attention(config, make_model(config, *SHAPES), "train.micro_batch")
    config = api.load_config("custom:quick")
    model = make_model(config, (10, 128, 128, 1), (5, 128, 128, 1))
    memory.check_attention(config, model, "train.micro_batch")


def test_fewer_examples_at_a_time(monkeypatch):
    config = api.load_config("custom:quick")
    model = make_model(config, (10, 256, 256, 1), (5, 256, 256, 1))
    set_memory(monkeypatch, 4 * GIB)
    with pytest.raises(ConfigError, match="Please use config.train.micro_batch=2,"):
        memory.check_attention(config, model, "train.micro_batch")
    memory.check_attention(config, model)


def test_other_models_are_not_asked(six):
    unet = models.create_model("unet", *SHAPES)
    memory.check_attention(api.load_config("custom:quick,unet"), unet)


def check_step(config):
    model = make_model(config, (4, 16, 16, 1), (2, 16, 16, 1))
    memory.check_step(
        config,
        settings.from_config(config),
        state.abstract_variables(model, (4, 16, 16, 1)),
        ((4, 16, 16, 1), (2, 16, 16, 1)),
    )


def test_a_batch(six):
    check_step(api.load_config("custom:test,unet"))
    config = api.load_config("custom:test,unet", {"train.batch_size": 10**9})
    with pytest.raises(ConfigError, match="batch_size=1000000000: a batch needs 5.6 T"):
        check_step(config)


def test_parameters(monkeypatch):
    config = api.load_config("custom:test,unet", {"model.features": (2048,)})
    set_memory(monkeypatch, GIB // 4)
    with pytest.raises(ConfigError, match="parameters and the state of the optimiser"):
        check_step(config)


def test_the_compiled_step(monkeypatch, tmp_path):
    """What XLA plans is compared before the step is taken."""
    run = functools.partial(
        loop.train,
        toy.config(train__steps=1, train__simulated_steps=0),
        tmp_path,
        dataset=toy.dataset(),
        model=toy.ToyModel(),
    )
    monkeypatch.setattr(mesh, "device_bytes", lambda: 1000)
    with pytest.raises(
        ConfigError, match="step needs 0.. MiB of memory, but there are"
    ):
        run()
    monkeypatch.undo()
    assert run()
