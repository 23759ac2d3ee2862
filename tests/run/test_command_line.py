"""Arguments of the commands: every field of every config can be set."""

import json

import ml_collections
import pytest
from absl import flags

from earthformer_jax import data, models
from earthformer_jax.run import command_line, config_files, parts
from earthformer_jax.settings import ConfigError, flatten
from earthformer_jax.training.workdir import write_config


@pytest.mark.parametrize(
    ("given", "want"),
    [
        (["--config=c.py:quick", "--config.model.name=unet"], "c.py:quick,unet"),
        (["--config.model.name=unet", "--config=c.py"], "c.py:,unet"),
        (["-config", "c.py:quick", "--config.model.name", "unet"], "c.py:quick,unet"),
        (["--config=c.py:quick,n", "--config.model.name=unet"], "c.py:quick,n"),
        (["--config=c.py:quick", "--config.model.names=unet"], "c.py:quick"),
        (["--config=c.py:quick", "--config.model.name=gru"], "c.py:quick"),
        (["--config=c.py:quick"], "c.py:quick"),
        (["--config=c.py:quick", "--config.data.name=enso"], "c.py:quick,enso"),
        (
            ["--config=c.py", "--config.model.name=unet", "--config.data.name=enso"],
            "c.py:,enso,unet",
        ),
    ],
)
def test_data_sets_and_models_by_name_bring_their_fields(given, want):
    changed = command_line.with_names(["main", *given])
    assert command_line.config_argument(changed) == want
    assert len(changed) == len(given) + 1


def test_nothing_to_change_without_a_config():
    argv = ["main", "--workdir=x", "--config.model.name=unet"]
    assert command_line.with_names(argv) == argv


def parse(*arguments):
    """The config that the command line makes of its arguments."""
    argv, flag_values = ["main", *arguments], flags.FlagValues()
    command_line.define_config(flag_values, argv)
    assert command_line.parse_flags(argv, flag_values) == ["main"]
    return flag_values.config


def test_another_data_set_keeps_what_it_shares():
    config = parse(
        "--config=moving_mnist:test",
        "--config.data.name=enso",
        "--config.data.twin_train=7",
    )
    shared = config_files.load("moving_mnist:test").data.in_len
    other = config_files.load("enso:test").data
    assert config.data.in_len == shared != other.in_len
    assert sorted(config.data) == sorted(other) and config.data.twin_train == 7
    assert config == parse(
        "--config=moving_mnist:test,enso", "--config.data.twin_train=7"
    )


def another(value, kind):
    """A value of the same type as a field's own, as text and as it will be."""
    if kind is bool:
        return str(not value), not value
    if kind is int:
        return str((value or 0) + 3), (value or 0) + 3
    if kind is float:
        return "0.125", 0.125
    if kind is tuple:
        return "(1, (2, 3))", (1, (2, 3))
    if kind is ml_collections.ConfigDict:
        return "{'a': 1}", ml_collections.ConfigDict({"a": 1})
    assert kind is str, f"a field of type {kind} cannot be set"
    return "other", "other"


def check_all_fields(file, prefix=""):
    """Sets every field that begins with `prefix`, all at once."""
    config = config_files.load(file)
    wanted = {}
    for name in flatten(config):
        if name.startswith(prefix) and name not in ("data.name", "model.name"):
            section, _, field = name.rpartition(".")
            holder = config[section] if section else config
            wanted[name] = another(holder[field], holder.get_type(field))
    assert len(wanted) > 1
    texts = [f"--config.{name}={text}" for name, (text, _) in wanted.items()]
    found = parse(f"--config={file}", *texts)
    for name, (_, value) in wanted.items():
        section, _, field = name.rpartition(".")
        assert (found[section] if section else found)[field] == value, name


@pytest.mark.parametrize("name", config_files.names())
def test_every_field_of_every_config(name):
    check_all_fields(f"{name}:test")
    assert set(data.MODULES) == {
        config_files.load(file).data.name for file in config_files.names()
    }


@pytest.mark.parametrize("model", models.names())
def test_every_option_of_every_model(model):
    check_all_fields(f"enso:quick,{model}", "model.")


def test_options_keep_their_types():
    config = parse(
        "--config=enso:test",
        "--config.model.norm=rms_norm",
        "--config.model.gated_ffn",
        "--noconfig.model.scan_blocks",
        "--config.model.enc_depth=2,",
        "--config.optim.lr=1",
        "--config.precision.compute=bfloat16",
    )
    assert (config.model.norm, config.model.gated_ffn) == ("rms_norm", True)
    assert config.model.scan_blocks is False
    assert config.model.enc_depth == (2,)
    assert config.optim.lr == 1.0 and isinstance(config.optim.lr, float)
    model = parts.make_model(config, (4, 8, 8, 1), (4, 8, 8, 1))
    assert model.dtype == "bfloat16" and model.norm == "rms_norm"


def test_numbers_in_a_list():
    assert parse("--config=custom:test", "--config.data.missing=255").data.missing == (
        255,
    )


@pytest.mark.parametrize(
    ("field", "near"),
    [
        ("model.nrom", "model.norm"),
        ("data.mising", "data.missing"),
        ("optim.lrr", "optim.lr"),
        ("train.setps", "train.steps"),
        ("sed", "seed"),
    ],
)
def test_unknown_fields_are_refused(field, near):
    with pytest.raises(ConfigError) as error:
        parse("--config=custom:test", f"--config.{field}=1")
    assert str(error.value) == (
        f"config.{field} is unknown; did you mean config.{near}?"
    )


def test_types_of_the_model_have_a_section_now():
    with pytest.raises(ConfigError) as error:
        parse("--config=custom:test", "--config.model.dtype=bfloat16")
    assert str(error.value) == "config.model.dtype is config.precision.compute now"


def test_errors_name_the_flag():
    with pytest.raises(ConfigError) as error:
        with command_line.as_config_error("data 'x'", "data", ["in_len", "path"]):
            raise ValueError("in_len=0: expected more; or set `path`")
    assert str(error.value) == (
        "config.data.in_len=0: expected more; or set config.data.path"
    )
    with pytest.raises(ConfigError, match="^data 'x': f.nc has no time$"):
        with command_line.as_config_error("data 'x'", "data", ["in_len"]):
            raise OSError("f.nc has no time")


def test_complete_configs_are_json():
    for model in models.names():
        config = config_files.load(f"enso:paper,{model}")
        assert json.loads(config.to_json_best_effort())["model"]["name"] == model


def test_fields_alone_change_the_config_of_the_workdir(tmp_path):
    """--workdir=W --config.data.path=... is the config of W with another path."""
    write_config(config_files.load("custom:test"), tmp_path)
    argv = ["main", f"--workdir={tmp_path}", "--config.data.path=later.nc"]
    flag_values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "", flag_values=flag_values)
    command_line.define_config(flag_values, argv)
    command_line.parse_flags(argv, flag_values)
    assert flag_values.config.data.path == "later.nc"
    assert (
        flag_values.config.data.in_len == config_files.load("custom:test").data.in_len
    )
