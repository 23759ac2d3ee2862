"""What memory cannot hold is refused before it is made, with remedies that work."""

import resource
import tracemalloc

import pytest

from earthformer_jax import models
from earthformer_jax.run import api, memory
from earthformer_jax.run.run import make_model
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import settings, state

GIB = 2**30
SHAPES = (10, 1024, 1024, 1), (5, 1024, 1024, 1)


@pytest.fixture
def six(monkeypatch):
    """A machine with 6 GiB."""
    monkeypatch.setattr(memory, "host_bytes", lambda: 6 * GIB)


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
    monkeypatch.setattr(memory, "host_bytes", lambda: 4 * GIB)
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
    monkeypatch.setattr(memory, "host_bytes", lambda: GIB // 4)
    with pytest.raises(ConfigError, match="parameters and the state of the optimiser"):
        check_step(config)


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("memory.max", f"{2**28}\n", 2**28),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", f"{2**27}", 2**27),
    ],
)
def test_limits_of_a_container(tmp_path, monkeypatch, name, text, limit):
    infinite = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: (infinite, infinite))
    whole = memory.host_bytes(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert memory.host_bytes(tmp_path) == (limit or whole)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**20, infinite))
    assert memory.host_bytes(tmp_path) == 2**20


def test_text():
    assert [memory.size_text(2.0**n) for n in (10, 20, 34, 55)] == [
        "0.0 MiB",
        "1.0 MiB",
        "16.0 GiB",
        "32,768.0 TiB",
    ]
