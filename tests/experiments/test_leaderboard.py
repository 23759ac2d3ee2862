"""Tables of results files."""

import json
import pathlib

import pytest


@pytest.fixture
def leaderboard(experiment):
    return experiment("leaderboard")


def forecast(csi, mse, gap=None):
    differences = {}
    if gap is not None:
        limits = {"difference": gap, "interval": [gap - 0.05, gap + 0.05]}
        differences = {"s_prog": {"csi_m": limits}}
    return {
        "csi_m": csi,
        "mse": mse,
        "mse_by_lead": [mse, mse],
        "verification": {"hss_16": csi / 2},
        "intervals": {
            "csi_m": [csi - 0.1, csi + 0.1],
            "mse_by_lead": [[0, 1], [0, 1]],
            "mse": [None, None],
        },
        "differences": differences,
    }


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Writes scores.json of a workdir; the current folder holds all."""
    monkeypatch.chdir(tmp_path)

    def write(name, model, examples="abc", **references):
        content = {
            "data": {
                "name": "sevir",
                "description": "radar",
                "test_examples": 8,
                "intervals": {
                    "level": 0.9,
                    "samples": 1000,
                    "blocks": 8,
                    "examples_sha256": examples,
                },
            },
            "verification": {
                "csi_m": {"better": "higher"},
                "hss": {"better": "higher"},
            },
            "forecasts": {"model": model} | references,
        }
        path = pathlib.Path(name) / "scores.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return name

    simple = {"persistence": forecast(0.2, 0.03), "s_prog": forecast(0.3, 0.02)}
    write("runs/unet", forecast(0.25, 0.015, -0.05), **simple)
    write("runs/earthformer", forecast(0.4, 0.01, 0.1), **simple)
    return write


def test_the_table(leaderboard, runs, capsys):
    assert leaderboard.main(["runs/unet", "runs/earthformer"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "**sevir, 8 test examples.** 90% intervals from 8 blocks"
    assert lines[2] == "|  | csi_m | mse | csi_m minus † |"
    assert lines[4:] == [
        "| earthformer | 0.4 (0.3 to 0.5) | 0.01 | +0.1 (+0.05 to +0.15) |",
        "| s prog † | 0.3 (0.2 to 0.4) | 0.02 |  |",
        "| unet | 0.25 (0.15 to 0.35) | 0.015 | [-0.05 (-0.1 to +0)] |",
        "| persistence | 0.2 (0.1 to 0.3) | 0.03 | – |",
    ]


def test_columns_and_a_file(leaderboard, runs, tmp_path):
    arguments = ["runs/unet", "runs/earthformer", "--scores=mse,hss_16"]
    assert leaderboard.main([*arguments, "--output=table.md"]) == 0
    lines = pathlib.Path("table.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[4:]] == [
        "| earthformer",
        "| unet",
        "| s prog †",
        "| persistence",
    ]
    assert lines[4].split(" | ")[2] == "0.2"


def test_other_examples_are_another_table(leaderboard, runs, capsys):
    runs("runs/other", forecast(0.9, 0.001), examples="xyz")
    assert leaderboard.main(["runs/unet", "runs/other"]) == 0
    first, second = capsys.readouterr().out.split("\n\n**")
    assert "unet" in first and "other" in second and "other" not in first
    assert "minus" not in second  # there is no reference


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere"], "nowhere does not exist; give workdirs or results files"),
        (["runs"], "runs has no scores.json; evaluate it: python -m"),
        (["runs/unet", "--scores=nse"], "--scores: nse is not a score of sevir"),
        (["broken.json"], "broken.json is not JSON"),
        (["list.json"], "list.json is neither scores.json nor comparison.json"),
        (["runs/unet", "runs/changed"], "'s_prog' has csi_m=0.3 in runs/unet"),
    ],
)
def test_what_cannot_be_used_is_named(leaderboard, runs, capsys, arguments, message):
    pathlib.Path("broken.json").write_text("{")
    pathlib.Path("list.json").write_text("[]")
    runs("runs/changed", forecast(0.5, 0.01), s_prog=forecast(0.31, 0.02))
    assert leaderboard.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_comparison(leaderboard, capsys, tmp_path):
    gap = {"difference": 0.1, "interval": [0.05, 0.2], "p_value": 0.01}
    back = {"difference": -0.1, "interval": [-0.2, -0.05], "p_value": 0.01}
    content = {
        "about": "radar",
        "examples": "8 test examples",
        "examples_sha256": "abc",
        "models": {"a": "runs/a"},
        "scores": {
            "csi_m": {
                "better": "higher",
                "forecasts": {
                    "a": {"value": 0.4, "interval": [0.3, 0.5]},
                    "persistence": {"value": 0.3, "interval": [None, None]},
                },
                "differences": {"a": {"persistence": gap}, "persistence": {"a": back}},
            }
        },
    }
    (tmp_path / "comparison.json").write_text(json.dumps(content))
    assert leaderboard.main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        "| a | 0.4 (0.3 to 0.5) | +0.1 (+0.05 to +0.2) |",
        "| persistence † | 0.3 |  |",
    ]


def test_a_score_without_a_value_is_last(leaderboard, runs, capsys):
    runs("runs/nan", forecast(0.5, 0.01) | {"csi_m": None, "verification": {}})
    assert leaderboard.main(["runs/nan", "runs/unet"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("| nan | –")
