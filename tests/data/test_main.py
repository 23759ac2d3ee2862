"""`python -m earthformer_jax.data`: what it prints, writes and refuses."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from earthformer_jax.data import __main__ as command
from earthformer_jax.settings import ConfigError

CONFIG = """
    import ml_collections

    def get_config(variant=""):
        if variant not in ("", "small"):
            raise ValueError(f"variant {variant!r} is unknown; use 'small' or nothing")
        c = ml_collections.ConfigDict()
        c.seed = 0
        c.data = dict(
            name="enso", path="", in_len=4, out_len=3,
            twin_train=20, twin_validation=5, twin_test=7,
        )
        return c.lock()
"""


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "experiment.py"
    path.write_text(textwrap.dedent(CONFIG))
    return path


def call(*arguments) -> int:
    return command.main(["earthformer_jax.data", *map(str, arguments)])


class TestShow:
    def test_prints_and_writes(self, config_file, tmp_path, capsys):
        assert call("show", f"--config={config_file}", "--count=2") == 0
        printed = capsys.readouterr().out.splitlines()
        assert printed[0].startswith("data      enso: embedded stochastic ENSO twin")
        assert "examples  train 20, validation 5, test 7" in printed
        assert "shown     test 0 6" in printed
        assert printed[-2:] == [
            f"wrote     runs/show/enso-test.{kind}" for kind in ("png", "gif")
        ]
        names = {path.name for path in (tmp_path / "runs/show").iterdir()}
        assert names == {"enso-test.png", "enso-test.gif"}

    def test_options(self, config_file, tmp_path, capsys):
        assert 0 == call(
            "show",
            "--config",
            f"{config_file}:small",
            "--config.data.twin_train=9",
            "--split=train",
            "--count=1",
            f"--out={tmp_path / 'pictures'}",
        )
        printed = capsys.readouterr().out
        assert "examples  train 9, validation 5, test 7" in printed
        assert (tmp_path / "pictures/enso-train.gif").is_file()


def test_help(capsys):
    for arguments in (["--help"], ["show", "--help"], ["inspect", "-h"], ["help"]):
        assert call(*arguments) == 0
        printed = capsys.readouterr().out
        for part in ("show --config=FILE", "--augmented", "inspect PATH", "--out=DIR"):
            assert part in printed


class TestInspect:
    def test_prints_what_is_there(self, tmp_path, capsys):
        path = tmp_path / "fields.npy"
        np.save(path, np.zeros((30, 8, 9), np.float32))
        assert call("inspect", path) == 0
        assert "fields.npy" in capsys.readouterr().out

    def test_proposes_what_a_run_accepts(self, tmp_path, capsys):
        """The model and the training are part of it."""
        path = tmp_path / "fields.npy"
        np.save(path, np.random.default_rng(0).random((40, 8, 9)))
        assert call("inspect", path) == 0
        printed = capsys.readouterr()
        (line,) = printed.out.splitlines()[-1:]
        assert line.startswith("train with  python -m earthformer_jax.main")
        assert "reading" in printed.err and "trying" in printed.err
        with pytest.raises(ConfigError, match="micro_batch"):
            command.try_command([*line.split()[5:], "--config.train.micro_batch=3"])

    def test_nothing_there(self, tmp_path, capsys):
        assert call("inspect", tmp_path / "absent.nc") == 2
        printed = capsys.readouterr()
        assert printed.err.startswith("error: ")
        assert "absent.nc" in printed.err
        assert printed.err.count("\n") == 1
        assert not printed.out


CONFIG_IS = "--config={file}"
WRONG = {
    "no command": ([], "the command is missing; use show or inspect, or --help"),
    "unknown command": (["shwo"], "'shwo' is not a command; use show or inspect"),
    "no config": (["show"], "--config is missing"),
    "no such file": (["show", "--config=a.py"], "config file a.py does not exist"),
    "unknown variant": (["show", CONFIG_IS + ":huge"], "variant 'huge' is unknown"),
    "unknown field": (
        ["show", CONFIG_IS, "--config.data.twin_trian=1"],
        "config.data.twin_trian is unknown; did you mean config.data.twin_train?",
    ),
    "wrong type": (
        ["show", CONFIG_IS, "--config.data.in_len=x"],
        "--config.data.in_len=x: expected a whole number",
    ),
    "wrong data": (
        ["show", CONFIG_IS, "--config.data.path=absent.nc"],
        "config.data.path=absent.nc does not exist",
    ),
    "unknown data": (
        ["show", CONFIG_IS, "--config.data.name=moon"],
        "config.data.name='moon' is unknown",
    ),
    "unknown flag": (
        ["show", CONFIG_IS, "--splt=test"],
        "flag 'splt'. Did you mean: split ?",
    ),
    "unknown split": (["show", CONFIG_IS, "--split=tst"], "--split=tst: value should"),
    "no samples": (["show", CONFIG_IS, "--count=0"], "--count=0"),
    "no augmentation": (
        ["show", CONFIG_IS, "--augmented"],
        "error: --augmented: the examples of 'enso' are not augmented",
    ),
    "stray argument": (["show", CONFIG_IS, "x"], "unexpected arguments: x"),
    "several paths": (["inspect", "a.nc", "b.nc"], "inspect takes one PATH, got 2"),
    "no path": (["inspect"], "inspect takes one PATH, got 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input(config_file, tmp_path, capsys, case):
    arguments, message = WRONG[case]
    assert call(*(a.format(file=config_file) for a in arguments)) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_written(config_file, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "below"
    assert call("show", f"--config={config_file}", "--count=1", f"--out={out}") == 2
    assert f"error: --out={out} cannot be written: " in capsys.readouterr().err


@pytest.mark.slow
def test_as_a_program(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "earthformer_jax.data", "show", "--config=absent.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: the config file absent.py does not exist; ")
    assert len(done.stderr.splitlines()) == 1
