"""The tables of the paper: well-formed, the paper's sizes, and what is not repeated."""

import json
import pathlib

import numpy as np
import pytest

from earthformer_jax.metrics import precipitation
from earthformer_jax.metrics.contract import dims_of
from earthformer_jax.reports.verification import archive
from earthformer_jax.reports.verification.sums import BlockSums, Examples

ROOT = pathlib.Path(__file__).parents[2]
TABLES = ("table3", "table4", "table5", "table6", "table7", "table12", "table13")


@pytest.fixture
def load(experiment, monkeypatch):
    """Imports a script, or a module that the scripts share."""
    monkeypatch.chdir(ROOT)
    return experiment


@pytest.fixture
def table(load, request):
    return load(request.param).TABLE


def every_table(test):
    return pytest.mark.parametrize("table", TABLES, indirect=True)(test)


@every_table
def test_rows_are_configs(table, load):
    runs = load("paper.runs")
    for data in table.data:
        for row in table.rows.values():
            for scale in runs.SCALES:
                config = runs.config_of(row, data, scale, seed=3)
                assert (config.data.name, config.model.name) == (data, row.model)
                assert config.seed == 3
                if scale == "paper":
                    for key, value in row.options.items():
                        assert config.model[key] == value


@every_table
def test_claims_hold_in_the_paper(table):
    for claim in table.claims:
        for data in table.data:
            better, worse = (
                table.rows[key].scores.get(data) for key in (claim.better, claim.worse)
            )
            if better and worse:
                lower = table.columns[data][0].lower_is_better
                assert better[0] < worse[0] if lower else better[0] > worse[0], claim


def test_rows_of_table_6_and_13_are_the_same_trainings(load):
    six, thirteen = (load(name).TABLE.rows for name in ("table6", "table13"))
    assert six.keys() == thirteen.keys()
    for key, row in six.items():
        assert (row.model, row.options) == (
            thirteen[key].model,
            thirteen[key].options,
        )


@pytest.mark.parametrize(
    ("script", "key", "unlike"),
    [
        ("table3", "depth-2", False),
        ("table4", "video_swin_2x8-4-global", False),
        ("table4", "axial_space_dilate_2-4", False),
        ("table5", "conv_lstm", True),
    ],
)
def test_parameters_are_the_paper_s(load, script, key, unlike):
    table, costs = load(script).TABLE, load("paper.costs")
    row = table.rows[key]
    model = costs.paper_model(row, table.data[0])
    millions = costs.costs_of(model, count_multiply_adds=False).parameters / 1e6
    digits = len(str(row.costs[0]).partition(".")[2])
    assert (round(millions, digits) != row.costs[0]) == unlike
    assert abs(millions - row.costs[0]) < 0.2


def test_a_star_marks_what_differs(load):
    costs, render = load("paper.costs"), load("paper.render")
    row = load("paper.table").Row("x", "x", costs=(6.6, 33.7), flops=2)
    cells = render.cost_cells(row, costs.Costs(6_612_000, 16_080_000_000))
    assert cells == ["6.61 (6.6)", "32.2* (33.7)"]
    assert not costs.differs(33.4, 33.7, 0.1) and not costs.differs(1.0, None, 0.1)


@pytest.fixture
def done(load, monkeypatch):
    """Trainings that only write what a training would."""
    runs = load("paper.runs")
    trained = []

    class Run:
        def __init__(self, config, workdir, parts):
            self.config, self.workdir = config, workdir
            self.dataset = self
            self.data = self
            self.description = "digits"
            self.train_examples = self.test = list(range(4))

        def example(self):
            return {key: np.zeros((2, 8, 8, 1)) for key in ("inputs", "targets")}

        def train(self):
            trained.append((self.workdir.parent.name, self.config.seed))
            return "stop" not in str(self.workdir)

        def evaluate(self):
            self.train = self.train_examples
            self.workdir.mkdir(parents=True, exist_ok=True)
            worse = "global" not in self.workdir.parent.name
            scores = dict(mse=40.0 + worse + self.config.seed, mae=90.0, ssim=0.5)
            forecasts = {"model": scores, "persistence": scores | {"mse": 80.0}}
            return {"forecasts": forecasts, "data": {"mse_units": "grey^2"}}

    monkeypatch.setattr(runs, "Run", Run)
    monkeypatch.setattr(runs, "validation_of", lambda folder, config: 1.5)
    monkeypatch.setattr(runs, "costs_of", lambda model: load("paper.costs").Costs(7, 9))
    monkeypatch.setattr(runs.models, "create_model", lambda *names, **options: None)
    program = load("paper.program")
    costs = load("paper.costs").Costs(7_611_000, 33_110_000_000)
    monkeypatch.setattr(program, "costs_of", lambda model: costs)
    return trained


ARGUMENTS = ["--scale=test", "--data=nbody_mnist", "--only=axial-4,axial-4-global"]


def test_table(load, done, tmp_path, capsys):
    script, program = load("table4"), load("paper.program")
    arguments = [*ARGUMENTS, "--seeds=2", f"--out={tmp_path}"]
    assert program.main(script.TABLE, "", arguments) == 0
    keys = ("axial-4", "axial-4-global")
    assert done == [(key, seed) for seed in range(2) for key in keys]
    text = (tmp_path / "test" / "table4.md").read_text()
    assert text in capsys.readouterr().out
    assert "| Axial | 7.61* (6.61) | 33.1* (33.7) | 41.50 ± 0.50 (15.89) |" in text
    assert "| *persistence* |  |  | 80.00 (–) |" in text
    assert "help | 1.07 | 1.00 [1.00, 1.00] | same order for every seed |" in text
    assert "not comparable in value" in text and "64 pixels" in text
    result = tmp_path / "test/nbody_mnist/axial-4/seed-0/result.json"
    assert json.loads(result.read_text())["forecasts"]["model"]["mse"] == 41.0


def test_what_is_done_is_not_repeated(load, done, tmp_path):
    script, program = load("table4"), load("paper.program")
    program.main(script.TABLE, "", [*ARGUMENTS, f"--out={tmp_path}"])
    done.clear()
    program.main(script.TABLE, "", [*ARGUMENTS, f"--out={tmp_path}", "--seeds=2"])
    assert done == [("axial-4", 1), ("axial-4-global", 1)]


def test_another_config_is_refused(load, done, tmp_path, capsys):
    script, program = load("table4"), load("paper.program")
    arguments = [*ARGUMENTS, f"--out={tmp_path}"]
    program.main(script.TABLE, "", arguments)
    with pytest.raises(SystemExit):
        program.main(script.TABLE, "", [*arguments, "--steps=9"])
    message = capsys.readouterr().err
    assert "train.steps=4, but train.steps=9 is asked for" in message


def test_interrupted(load, done, tmp_path):
    script, program = load("table4"), load("paper.program")
    arguments = [*ARGUMENTS, f"--out={tmp_path / 'stop'}"]
    assert program.main(script.TABLE, "", arguments) == 1
    assert not (tmp_path / "stop" / "test" / "table4.md").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--only=axial", "--only=axial: expected some of axial-4, "),
        ("--data=sevir", "--data=sevir: expected some of moving_mnist"),
        ("--seeds=0", "--seeds=0: expected at least 1"),
        ("--steps=0", "--steps=0: expected at least 1"),
        ("--path=x", "--path=x needs --data"),
        ("--set=steps", "--set steps: expected FIELD=VALUE"),
        ("--set=train.stepz=3", "no field train.stepz; did you mean"),
        ("--scale=large", "invalid choice: 'large'"),
    ],
)
def test_wrong_arguments(load, done, capsys, tmp_path, wrong, message):
    with pytest.raises(SystemExit):
        load("paper.program").main(
            load("table4").TABLE, "", [f"--out={tmp_path}", wrong]
        )
    assert message in capsys.readouterr().err
    assert not done and not list(tmp_path.iterdir())


def test_best_validation_score(load, tmp_path):
    runs, row = load("paper.runs"), load("paper.table").Row("x", "x")
    lines = [{"validation/mse": 3.0}, {"train/loss": 1.0}, {"validation/mse": 2.0}]
    lines[1]["validation/csi_m"] = 0.25
    text = "\n".join(map(json.dumps, lines))
    (tmp_path / "metrics.jsonl").write_text(text)
    for data, scale, best in (("sevir", "test", 2.0), ("sevir", "paper", 0.25)):
        assert runs.validation_of(tmp_path, runs.config_of(row, data, scale)) == best


@pytest.mark.slow
def test_a_table_from_end_to_end(load, tmp_path):
    """One row is trained and scored, with the sums that intervals are made of."""
    script, program = load("table5"), load("paper.program")
    arguments = ["--scale=test", "--data=nbody_mnist", "--only=unet"]
    assert program.main(script.TABLE, "", [*arguments, f"--out={tmp_path}"]) == 0
    folder = tmp_path / "test/nbody_mnist/unet/seed-0"
    result = json.loads((folder / "result.json").read_text())
    score = result["forecasts"]["model"]["mse"]
    assert result["validation"] > 0 and result["parameters"] > 0
    text = (tmp_path / "test/table5.md").read_text()
    assert f"| UNet | 16.56 (16.6) | 0.9 (0.9) | {score:.2f} (38.90) |" in text
    samples = load("paper.intervals").samples_of(
        script.TABLE.columns["nbody_mnist"][0], [(folder, result)]
    )
    assert samples is not None and samples[0][0] == pytest.approx(score, rel=1e-4)


def test_malformed_tables_are_refused(load):
    paper = load("paper.table")
    row = paper.Row("a", "a", scores={"enso": (1.0, 2.0)})
    make = dict(name="t", title="t", data=("enso",), columns={"enso": ()})
    with pytest.raises(ValueError, match="2 values for 0 columns"):
        paper.Table(**make, rows={"a": row})
    with pytest.raises(ValueError, match="has the key 'a'"):
        paper.Table(**make, rows={"b": paper.Row("a", "a")})
    with pytest.raises(ValueError, match="'c' is not a row"):
        paper.Table(**make, rows={}, claims=[paper.Claim("c", "c", "c")])
    with pytest.raises(ValueError, match="not unique"):
        paper.by_key(row, row)


def test_intervals_of_claims(load, tmp_path):
    """Sums of both rows give a paired interval; other examples give none."""
    paper, of = load("paper.table"), load("paper.intervals")
    rows = paper.by_key(*(paper.Row(key, key) for key in "abc"))
    table = paper.Table(
        name="t",
        title="t",
        data=("sevir",),
        columns={"sevir": (paper.Column("mse", "MSE", 3, 1e3, lower_is_better=True),)},
        rows=rows,
        claims=[paper.Claim("a beats b", "a", "b"), paper.Claim("a, c", "a", "c")],
    )
    hard = np.random.default_rng(0).uniform(1, 9, 40)  # the same for all
    trainings = {
        key: [_evaluated(tmp_path / key, hard + more, checksum)]
        for key, more, checksum in (("a", 0, "x"), ("b", 0.5, "x"), ("c", 1, "y"))
    }
    found = of.of_claims(table, "sevir", trainings)
    assert list(found) == [table.claims[0]]
    np.testing.assert_allclose(found[table.claims[0]], (500, 500), rtol=1e-6)
    folder, result = trainings["a"][0]
    result["forecasts"]["model"]["mse"] *= 1.01  # of something else
    assert of.samples_of(table.columns["sevir"][0], [(folder, result)]) is None


def _evaluated(folder, errors, checksum):
    """Workdir and result of an evaluation of 40 blocks with these squared errors."""
    verification = precipitation.verification()
    sizes = {
        name: (40, 1, *(len(x.coords[dim]) for dim in dims_of(x)[1:]))
        for name, x in verification.statistics.items()
    }
    values = {
        name: {part: np.ones(sizes[name]) for part in x.names}
        for name, x in verification.statistics.items()
    }
    values["errors"]["squared"] = errors[:, None]
    examples = Examples("d", "d", checksum, (1, 1, 1, 1), "", "", "one", np.ones(40))
    sums = BlockSums(examples, verification, {"model": values})
    archive.write(folder / archive.NAME, sums)
    scores = {"mse": float(errors.mean())}
    return folder, {"forecasts": {"model": scores}, "data": {"mse_units": ""}}
