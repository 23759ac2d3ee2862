"""Configs are completed, checked, and described."""

import ml_collections
import pytest

from earthformer_jax import models
from earthformer_jax.run import config as lib
from earthformer_jax.settings import ConfigError, flatten
from earthformer_jax.training.settings import OptimSettings, Settings
from tests.training import toy


def small(**changes):
    """A config that leaves out nearly everything."""
    return ml_collections.ConfigDict(
        dict(data=dict(name="enso"), model=dict(name="unet")) | changes
    )


class TestCompleted:
    def test_what_is_left_out_has_its_default(self):
        c = lib.completed(small())
        assert c.is_locked
        assert c.seed == Settings.seed and c.optim.lr == OptimSettings.lr
        assert c.data.in_len == 12 and c.model.center_features == 1024
        assert lib.completed(c) == c

    def test_what_is_there_is_kept_and_the_given_config_is_not_changed(self):
        given = small(seed=3, optim=dict(lr=0.5), extra=dict(x=1)).lock()
        c = lib.completed(given)
        assert (c.seed, c.optim.lr, c.extra.x) == (3, 0.5, 1)
        assert set(given.optim) == {"lr"} and "train" not in given

    def test_references_stay(self):
        given = small()
        given.data.in_len = 6
        given.data.out_len = given.data.get_ref("in_len")
        c = lib.completed(given)
        c.data.in_len = 8
        assert c.data.out_len == 8

    def test_types_are_those_of_the_fields(self):
        c = lib.completed(
            small(
                optim=dict(lr=1),
                model=dict(name="earthformer", block_units=None),
            )
        )
        assert c.optim.get_type("lr") is float
        assert c.model.get_type("block_units") is tuple
        assert c.model.get_type("dec_cross_last_n_frames") is int
        assert (c.precision.compute, c.precision.params) == ("float32", "float32")
        c.model.block_units = (8, 16)

    def test_types_of_earlier_configs_are_moved(self):
        types = dict(dtype="bfloat16", param_dtype="float32")
        c = lib.completed(small(model=dict(name="unet", **types)))
        assert c.precision.compute == "bfloat16" and "dtype" not in c.model
        assert lib.completed(c) == c

    @pytest.mark.parametrize(
        ("value", "name"), [(False, "none"), (True, "blocks"), (2, "blocks"), (9, 9)]
    )
    def test_older_values_have_their_new_names(self, value, name):
        old = {"model": {"name": "earthformer", "remat": value}}
        old = ml_collections.ConfigDict(old)
        assert lib.completed(old).model.remat == name
        assert lib.explicit(old.lock()).model.remat == name
        assert old.model.remat == value

    def test_unknown_names_have_no_fields(self):
        c = lib.completed(small(data=dict(name="moon"), model=dict(name="gru", x=1)))
        assert dict(c.data) == {"name": "moon"}
        assert dict(c.model) == {"name": "gru", "x": 1}

    def test_a_part_of_a_config(self):
        assert lib.completed(ml_collections.ConfigDict()).train.batch_size == 64


class TestCheck:
    def test_the_toy_config_is_right(self):
        settings = lib.check(toy.config())
        assert settings.train.micro_batch == toy.config().train.micro_batch

    def test_sections_may_be_left_out(self):
        assert lib.check(small()) == Settings()

    def test_values_are_checked(self):
        with pytest.raises(
            ConfigError, match="config.optim.lr=-1.0: expected a number"
        ):
            lib.check(toy.config(optim__lr=-1.0))

    @pytest.mark.parametrize("section", ["data", "model"])
    def test_missing_section_or_name(self, section):
        c = small()
        del c[section].name
        with pytest.raises(ConfigError, match=f"config.{section}.name is missing"):
            lib.check(c)
        del c[section]
        with pytest.raises(ConfigError, match=f"config.{section} is missing"):
            lib.check(c)

    def test_unknown_section(self):
        with pytest.raises(ConfigError) as error:
            lib.check(small(optimizer={}))
        assert str(error.value) == (
            "config.optimizer is unknown; did you mean config.optim?"
        )

    def test_a_value_in_place_of_a_section(self):
        with pytest.raises(ConfigError, match="config.train=3: expected fields"):
            lib.check(small(train=3))

    def test_options_of_data_and_model_are_not_its_business(self):
        lib.check(small(model=dict(name="unet", anything=3)))


def test_fields_are_listed_with_their_meanings():
    lines = lib.list_fields(small()).splitlines()
    assert len(lines) == len(flatten(lib.completed(small())))
    assert (
        "--config.seed=0  seed of initial parameters, dropout and data order" in lines
    )
    assert "--config.data.in_len=12  number of input months" in lines
    assert any(line.startswith("--config.model.norm_momentum=0.99  ") for line in lines)
    assert "--config.data.name=enso" in " ".join(lines)


@pytest.mark.parametrize(
    "section, name",
    [
        ("data", n)
        for n in ("enso", "sevir", "climate", "custom", "moving_mnist", "nbody_mnist")
    ],
)
def test_every_data_setting_has_a_meaning(section, name):
    fields = lib.defaults(section, name)
    described = lib.described(section, name)
    assert [f for f in fields if not lib.meanings(described).get(f)] == []


@pytest.mark.parametrize("name", models.names())
def test_every_model_option_has_a_meaning(name):
    meanings = lib.meanings_of("model", name)
    assert [f for f in lib.defaults("model", name) if not meanings.get(f)] == []
