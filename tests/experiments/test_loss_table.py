"""The table of losses, with trainings that only write what a training would."""

import json
import pathlib
import types

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def script(experiment, monkeypatch):
    module, trained = experiment("loss_table"), []
    monkeypatch.setattr(module, "trained", trained, raising=False)

    class Run:
        def __init__(self, config, workdir, make_parts):
            self.config, self.workdir = config, workdir
            dataset, model = make_parts(config)
            assert dataset.data.example()["targets"].shape == model.target_shape

        def train(self):
            self.workdir.mkdir(parents=True, exist_ok=True)
            trained.append((self.config.train.loss, self.config.seed))
            return self.config.train.loss != "facl"

        def evaluate(self):
            seed = int(self.workdir.name[-1])
            scores = dict.fromkeys(module.COLUMNS, 0.25 * seed)
            forecasts = {"model": scores, "persistence": dict.fromkeys(scores, 0.125)}
            file = self.workdir / "scores.json"
            file.write_text(json.dumps({"forecasts": forecasts}))

    monkeypatch.setattr(module, "Run", Run)
    return module


def test_every_row_is_a_config(script, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = types.SimpleNamespace(scale="quick", path=None, monitor="csi_m")
    for name, row in script.ROWS.items():
        config = script.config_of(row, 1, arguments)
        assert config.train.loss == row.changes["train.loss"]
        assert name.startswith(config.train.loss) and config.seed == 1
        assert config.train.monitor_mode == "max"


def test_table(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    arguments = ["--scale=test", "--losses=mse,mae", "--seeds=3", f"--out={tmp_path}"]
    assert script.main(arguments) == 0
    assert script.trained == [(x, seed) for seed in range(3) for x in ("mse", "mae")]
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[0].startswith("| loss | MSE | CSI 16 |")
    assert lines[2].startswith("| `mse` | 0.2500 ± 0.2500 | 0.250 ± 0.250 |")
    assert lines[-1].startswith("| *persistence* | 0.1250 | 0.125 |")
    assert {line.count("|") for line in lines} == {len(script.COLUMNS) + 2}
    assert "\n".join(lines) in capsys.readouterr().out


def test_what_is_interrupted_is_not_in_the_table(script, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = ["--scale=test", "--losses=mse,facl", "--seeds=1", f"--out={tmp_path}"]
    assert script.main(arguments) == 1
    assert "facl" not in (tmp_path / "table.md").read_text()


def test_examples_are_made_once(script):
    made = []

    class Source(list):
        def __getitem__(self, index):
            made.append(index)
            return {"inputs": index}

    kept = script.Kept(Source(range(5)))
    assert len(kept) == 5
    assert [kept[i]["inputs"] for i in (3, 1, 3)] == [3, 1, 3] and made == [3, 1]


@pytest.mark.parametrize("wrong", ["--losses=l2", "--seeds=0"])
def test_wrong_arguments(script, wrong):
    with pytest.raises(SystemExit):
        script.main([wrong])
