"""Arguments of the commands."""

import pytest

from earthformer_jax.run import command_line


@pytest.mark.parametrize(
    ("given", "want"),
    [
        (["--config=c.py:quick", "--config.model.name=m"], "c.py:quick,m"),
        (["--config.model.name=m", "--config=c.py"], "c.py:,m"),
        (["-config", "c.py:quick", "--config.model.name", "m"], "c.py:quick,m"),
        (["--config=c.py:quick,n", "--config.model.name=m"], "c.py:quick,n"),
        (["--config=c.py:quick", "--config.model.names=m"], "c.py:quick"),
        (["--config=c.py:quick"], "c.py:quick"),
    ],
)
def test_a_model_by_name_brings_its_options(given, want):
    changed = command_line.with_model(["main", *given])
    assert command_line.config_argument(changed) == want
    assert len(changed) == len(given) + 1


def test_nothing_to_change_without_a_config():
    argv = ["main", "--workdir=x", "--config.model.name=m"]
    assert command_line.with_model(argv) == argv
