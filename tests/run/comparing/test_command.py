"""--mode=compare: its flags, its files, and its one-line errors."""

import os

import pytest

from earthformer_jax.reports.verification import archive
from earthformer_jax.run import comparing
from earthformer_jax.settings import ConfigError
from tests.reports.verification.fields import data, half, persistence
from tests.reports.verification.test_sums import gathered
from tests.test_main import call

REFERENCE = {"persistence": persistence}


@pytest.fixture
def workdirs(tmp_path, monkeypatch):
    """The current folder holds two evaluated workdirs, a and b."""
    monkeypatch.chdir(tmp_path)
    for name, forecast in (("a", half), ("b", lambda batch: 0.9 * half(batch))):
        sums, _ = gathered(data(5), forecasts={"model": forecast} | REFERENCE)
        archive.write(tmp_path / name / "sums.nc", sums)
    return tmp_path


def test_the_command(workdirs, capsys):
    assert call("--mode=compare", "--workdirs=a, b", "--output=out/both") == 0
    out = capsys.readouterr().out
    assert "a minus persistence: mse" in out and "written: out/both/comp" in out
    assert sorted(os.listdir("out/both")) == [
        "comparison.csv",
        "comparison.json",
        "comparison.png",
    ]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--workdirs is missing, e.g. --workdirs=runs/a,runs/b"),
        (["--workdirs=a,c"], "--workdirs: c does not exist"),
        (["--workdirs=a,a"], "--workdirs: a and a are the same; give each once"),
        (["--workdirs=a"], "--workdirs: a alone cannot be compared"),
        (["--workdirs=a,b", "--workdir=a"], "leave out --config and --workdir"),
        (["--workdirs=a,b", "--output=a/sums.nc"], "is a file: expected a folder"),
        (["--workdirs=a,b", "--members=3"], "--members needs --mode=forecast or"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(
    workdirs, capsys, arguments, message
):
    before = sorted(workdirs.rglob("*"))
    assert call("--mode=compare", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert sorted(workdirs.rglob("*")) == before


def test_workdirs_belong_to_this_mode(workdirs, capsys):
    assert call("--mode=evaluate", "--workdir=a", "--workdirs=a,b") == 2
    assert "--workdirs needs --mode=compare" in capsys.readouterr().err


def test_as_a_function(workdirs):
    files = comparing.compare("a,b")
    assert [str(x) for x in files][0] == "comparison/comparison.json"
    with pytest.raises(ConfigError, match="--workdirs is missing"):
        comparing.compare(None)
