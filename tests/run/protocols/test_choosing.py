"""Trained models are scored by a protocol, or refused before anything is written."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from earthformer_jax import data, reports
from earthformer_jax.data.protocols import registry
from earthformer_jax.reports import scoring
from earthformer_jax.run.api import evaluate, load_config
from earthformer_jax.run.protocols import choosing
from earthformer_jax.run.run import Run
from earthformer_jax.settings import ConfigError
from tests.data import sevir_layout, sst_files

PAPER, CHALLENGE = "sevir-paper", "sevir-challenge"
WINDOWS = {"train": 6, "validation": 9, "test": 12}
FULL: Any = dict(in_len=13, out_len=12, space_step=1)  # what the protocol has


@pytest.fixture(scope="module", autouse=True)
def small():
    """The protocols of SEVIR, of files with frames of 12 x 12."""
    table: Any = registry.PROTOCOLS
    with pytest.MonkeyPatch.context() as patch:
        for name in (PAPER, CHALLENGE):
            made = dataclasses.replace(table[name], size=(12, 12), examples=WINDOWS)
            patch.setitem(table, name, made)
        yield


@pytest.fixture(scope="module", autouse=True)
def short_report():
    """Scores without figures and pages, which take long."""

    def report(task, data, model, workdir, settings, about):
        del about
        found = scoring.evaluate(
            task.metric, data.test, {"model": model.forecast}, settings.batch_size
        )
        scores = {"data": dict(task.protocol), "forecasts": found}
        scoring.write_json(settings.output(workdir, "scores.json"), scores)
        return scores

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "report", report)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(sevir_layout.write(tmp_path_factory.mktemp("sevir")))


def config_of(folder, **changes):
    fields = {"path": folder} | FULL | changes
    return load_config("sevir:test,persistence", {"data": fields})


def trained(config, workdir):
    """A workdir as `train` leaves it; persistence has nothing to train."""
    assert Run(config, workdir).train()
    return workdir


@pytest.fixture(scope="module")
def workdir(folder, tmp_path_factory):
    return trained(config_of(folder), tmp_path_factory.mktemp("runs") / "plain")


def files(workdir):
    return sorted(str(x.relative_to(workdir)) for x in workdir.rglob("*"))


def test_scores_by_two_protocols(workdir):
    before = files(workdir)
    found = {name: evaluate(workdir, name) for name in (PAPER, CHALLENGE)}
    assert {f"scores-{name}.json" for name in found} <= set(files(workdir))
    assert "scores.json" not in {*files(workdir)} - {*before}
    for name, scores in found.items():
        kept = json.loads((workdir / f"scores-{name}.json").read_text())
        assert kept["data"]["protocol"] == scores["data"]["protocol"] == name
        assert kept["data"]["protocol_sha256"] == registry.PROTOCOLS[name].sha256
    paper, challenge = (x["forecasts"]["model"] for x in found.values())
    assert {"csi_219"} == {*paper} - {*challenge} - {"csi_160", "csi_181"}
    assert np.mean(challenge["csi_by_lead"]) == pytest.approx(challenge["csi_m"])
    assert np.mean(paper["csi_by_lead"]) != pytest.approx(paper["csi_m"], rel=1e-9)
    assert paper["mse"] == pytest.approx(challenge["mse"], rel=1e-6)


def test_by_the_config(folder, tmp_path):
    """Without the flag, the protocol of the config; and no other label."""
    workdir = trained(config_of(folder, protocol=CHALLENGE), tmp_path / "run")
    scores = Run.of(workdir).evaluate()
    assert scores["data"]["protocol"] == CHALLENGE
    assert (workdir / "scores.json").exists()
    # The flag takes another one, and the label says so.
    again = evaluate(workdir, PAPER)
    assert again["data"]["protocol"] == PAPER
    assert (workdir / f"scores-{PAPER}.json").exists()
    assert json.loads((workdir / "config.json").read_text())["data"]["protocol"] == (
        CHALLENGE
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "sevir-papr",
            "--protocol=sevir-papr: there is no such protocol; did you mean",
        ),
        (
            "",
            "--protocol=: there is no such protocol; for 'sevir' data there are sevir",
        ),
        (
            "nbody-paper",
            "--protocol=nbody-paper is for 'nbody_mnist' data; for 'sevir'",
        ),
        ("enso-kaplan-1985-2014", "is for 'enso' data; for 'sevir' data there are"),
        (
            "sevir-lr",
            "which was trained with\n  config.data.in_len=13; in sevir-lr it is 7\n",
        ),
    ],
)
def test_refused(workdir, name, message):
    before = files(workdir)
    with pytest.raises(ConfigError) as error:
        evaluate(workdir, name)
    assert message in str(error.value)
    assert files(workdir) == before


def test_settings_of_the_training_and_of_the_command(folder, tmp_path, workdir):
    other = dict(normalization="sevir", train_until="2018-12-01")
    elsewhere = trained(config_of(folder, **other), tmp_path / "run")
    before = files(elsewhere)
    with pytest.raises(ConfigError) as error:
        evaluate(elsewhere, PAPER)
    assert "config.data.normalization=sevir; in sevir-paper it is 01" in str(
        error.value
    )
    assert "config.data.train_until=2018-12-01; in" in str(error.value)
    assert "train one with --config.data.protocol=sevir-paper" in str(error.value)
    # The command changes what the training had right.
    with pytest.raises(ConfigError, match="contradicts\n  config.data.stride=5; in"):
        Run(config_of(folder, stride=5), workdir, protocol=PAPER).evaluate()
    # By the config instead of the flag.
    wrong = config_of(folder, protocol=PAPER)
    with pytest.raises(ConfigError, match="config.data.normalization=sevir"):
        Run(wrong, elsewhere).evaluate()
    assert files(elsewhere) == before


def test_other_files(workdir, tmp_path):
    """They have the layout, but not the examples of the protocol."""
    rows = sevir_layout.catalog()
    rows = rows.drop(index=rows.index[rows.id == "S6"])
    last = sevir_layout.write(tmp_path / "few", table=rows)
    config = config_of(str(last))
    before = files(workdir)
    with pytest.raises(ConfigError, match="here there are 6 train, 9 validation, 9 te"):
        Run(config, workdir, protocol=PAPER).evaluate()
    assert files(workdir) == before
    Run(config, workdir).evaluate()
    assert "scores-few.json" in files(workdir)


def test_the_twin_is_not_sevir(tmp_path):
    config = load_config("sevir:test,persistence")
    workdir = trained(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="config.data.in_len=4; in sevir-paper it is"):
        evaluate(workdir, PAPER)
    same = dict(FULL, stride=12, twin_train=6, twin_validation=9, twin_test=12)
    like = load_config("sevir:test,persistence", {"data": same | {"space_step": 1}})
    made = choosing.chosen(like, PAPER)
    with pytest.raises(
        ConfigError, match="protocol=sevir-paper is for files, and none"
    ):
        Run(made, trained(like, tmp_path / "twin")).evaluate()


def test_a_workdir_of_an_earlier_version(folder, tmp_path):
    """It has no `protocol` in its config, and nothing that is kept of its data."""
    workdir = trained(config_of(folder), tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    del config["data"]["protocol"]
    (workdir / "config.json").write_text(json.dumps(config))
    (workdir / "data.nc").unlink(missing_ok=True)
    assert evaluate(workdir, PAPER)["data"]["protocol"] == PAPER
    assert Run(config_of(folder), workdir).train()  # the same command continues
    with pytest.raises(ConfigError, match='data.protocol: "", now "sevir-paper"'):
        Run(config_of(folder, protocol=PAPER), workdir).train()


@pytest.fixture(scope="module")
def months(tmp_path_factory):
    folder = tmp_path_factory.mktemp("months")
    return str(sst_files.write(sst_files.dataset(12 * 14), folder / "sst.nc"))


class TestElNino:
    DATES: Any = dict(
        train_from="2005-01",
        train_until="2011-12",
        validate_until="2013-12",
        test_from="2001-01",
        test_until="2003-12",
    )
    NAME = "enso-kaplan-1985-2014"

    @pytest.fixture(autouse=True)
    def short(self, monkeypatch):
        table: Any = registry.PROTOCOLS
        made = dataclasses.replace(table[self.NAME], settings=self.DATES)
        monkeypatch.setitem(table, self.NAME, made)

    def config(self, path, **changes):
        fields = dict(path=path, in_len=6, out_len=4) | changes
        return load_config("enso:test,persistence", {"data": fields})

    def test_the_same_months_without_the_name(self, months, tmp_path):
        workdir = trained(self.config(months, **self.DATES), tmp_path / "run")
        scores = evaluate(workdir, self.NAME)
        assert scores["data"]["protocol"] == self.NAME
        assert (workdir / f"scores-{self.NAME}.json").exists()
        assert "protocol" not in evaluate(workdir)["data"]

    def test_other_months(self, months, tmp_path):
        workdir = trained(self.config(months), tmp_path / "run")
        before = files(workdir)
        with pytest.raises(
            ConfigError, match="divides the data in another way|test per"
        ):
            evaluate(workdir, self.NAME)
        assert files(workdir) == before


def test_data_without_protocols_have_no_such_field():
    for name in data.MODULES:
        fields = {x.name for x in dataclasses.fields(data.settings(name))}
        of_name = any(x.data == name for x in registry.PROTOCOLS.values())
        assert ("protocol" in fields) == of_name
