"""Several models on the same test examples, and what cannot be compared."""

import dataclasses
import functools
import json
import os
import shutil

import numpy as np
import pytest

from earthformer_jax.metrics.scores import continuous
from earthformer_jax.metrics.verification import LOWER, Score
from earthformer_jax.reports.verification import archive, comparison, names, skill
from earthformer_jax.reports.verification.compare import compare
from tests.reports.verification.fields import data, half, persistence
from tests.reports.verification.test_sums import gathered

COUNT = 10


def quarter(batch):
    """Three quarters of the truth, a better forecast than half of it."""
    return 0.75 * np.asarray(batch["targets"])


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Workdirs of two models, and a function that makes another one."""
    root = tmp_path_factory.mktemp("runs")

    def make(name, forecast=half, examples=None, change=None, **references):
        forecasts = {"model": forecast, "persistence": persistence} | references
        sums, _ = gathered(examples or data(COUNT), forecasts=forecasts)
        sums = sums if change is None else change(sums)
        archive.write(root / name / "sums.nc", sums)
        return root / name

    return make("half"), make("quarter", quarter), make


def test_models_and_references(evaluated, tmp_path):
    found = compare(evaluated[:2])
    assert list(found.models) == ["half", "quarter"]
    assert found.names[0] == "quarter" and set(found.names[1:]) == {
        "half",
        "persistence",
    }
    assert found.strongest == "persistence"
    assert found.headline == ["mse", "csi_m"]
    text = comparison.table(found)
    assert "10 test examples; 90% intervals from 10 blocks (an example each)" in text
    rows = [line.split()[0] for line in text.splitlines()[3:6]]
    assert rows == found.names
    assert "quarter minus persistence: mse -" in text and "p = 0.0" in text
    assert "quarter minus half: mse -" in text and "better" in text
    files = comparison.write(found, tmp_path / "a" / "b")
    assert sorted(os.listdir(tmp_path / "a" / "b")) == sorted(x.name for x in files)
    written = json.loads(files[0].read_text())
    pair = written["scores"]["mse"]["differences"]["quarter"]["half"]
    values = written["scores"]["mse"]["forecasts"]
    assert pair["difference"] == pytest.approx(
        values["quarter"]["value"] - values["half"]["value"]
    )
    assert pair["interval"][1] < 0 and pair["verdict"] == "better"
    lines = files[1].read_text().splitlines()
    assert lines[0].startswith("forecast,score,value,low,high,units,minus,difference,")
    assert len(lines) == 1 + 6 * len(written["scores"])


def test_a_comparison_agrees_with_scores_json(evaluated):
    """The same samples: what one evaluation says of its reference is said here."""
    sums = archive.read(evaluated[0] / "sums.nc")
    found = compare(evaluated[:2])
    alone = gathered(data(COUNT), forecasts={"model": half, "persistence": persistence})
    assert alone[0].examples.checksum == sums.examples.checksum
    (score,) = skill.sampled(sums, names=["mse"])
    (other,) = [x for x in found.numbers if x.name == "mse"]
    np.testing.assert_array_equal(
        score.difference("model", "persistence").interval,
        other.difference("half", "persistence").interval,
    )


def test_the_steps_of_the_models_are_shown(evaluated):
    def change(sums):
        return dataclasses.replace(sums, step=1200)

    found = compare([evaluated[0], evaluated[2]("longer", change=change)])
    assert "\nTraining steps: longer 1,200\n" in comparison.table(found)
    assert comparison.content(found)["steps"] == {"half": None, "longer": 1200}


def test_a_reference_of_one_file_is_compared_too(evaluated):
    more = evaluated[2]("more", climatology=lambda batch: 0 * batch["targets"])
    found = compare([evaluated[1], more])
    assert set(found.names) == {"quarter", "more", "persistence", "climatology"}


@pytest.mark.parametrize(
    "examples, message",
    [
        (data(7), "number: 10 and 7"),
        (data(COUNT, seed=1), r"their values \(another period, seed, version"),
        (
            dataclasses.replace(data(COUNT), name="digits"),
            "same test examples: data: fields and digits",
        ),
    ],
)
def test_other_examples_are_refused(evaluated, examples, message):
    def renamed(sums):
        about = dataclasses.replace(sums.examples, data=examples.name)
        changed = examples.name != "fields"
        about = dataclasses.replace(about, checksum="0") if changed else about
        return dataclasses.replace(sums, examples=about)

    other = evaluated[2]("other", examples=examples, change=renamed)
    with pytest.raises(ValueError, match=message):
        compare([evaluated[0], other])


def test_another_reference_of_the_same_name_is_refused(evaluated):
    other = evaluated[2]("learned", persistence=lambda batch: 0 * batch["targets"])
    with pytest.raises(ValueError, match="'persistence' is not the same forecast in"):
        compare([evaluated[0], other])


def test_scores_that_only_some_have_are_named(evaluated):
    def change(sums):
        scores = dict(sums.verification.scores)
        scores["psnr"] = Score(
            "errors", functools.partial(continuous.psnr, data_range=2)
        )
        scores["mine"] = Score("errors", continuous.mse, LOWER)
        verification = dataclasses.replace(sums.verification, scores=scores)
        return dataclasses.replace(sums, verification=verification)

    found = compare([evaluated[0], evaluated[2]("newer", change=change)])
    assert found.left_out == ["mine", "psnr"]
    assert "Not in all files: mine, psnr" in comparison.table(found)

    def nothing(sums):
        verification = dataclasses.replace(
            sums.verification, scores={"mine": Score("errors", continuous.mse, LOWER)}
        )
        return dataclasses.replace(sums, verification=verification)

    with pytest.raises(ValueError, match="have no score in common"):
        compare([evaluated[0], evaluated[2]("nothing", change=nothing)])


def test_what_is_not_there_is_named(evaluated, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        compare([evaluated[0], tmp_path / "nowhere"])
    with pytest.raises(
        FileNotFoundError, match=rf"--workdir={tmp_path} --mode=evaluate"
    ):
        compare([evaluated[0], tmp_path])
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="config.json is a file: expected a workdir"):
        compare([evaluated[0], tmp_path / "config.json"])


def test_the_same_workdir_twice_is_refused(evaluated, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(evaluated[0])
    for again in (evaluated[0], link, evaluated[0] / "sums.nc"):
        with pytest.raises(ValueError, match="are the same; give each once"):
            compare([evaluated[0], evaluated[1], again])
    with pytest.raises(ValueError, match="half alone cannot be compared"):
        compare(evaluated[:1])


def test_files_with_a_label(evaluated, tmp_path):
    shutil.copy(evaluated[0] / "sums.nc", tmp_path / "sums-later.nc")
    found = compare([tmp_path / "sums-later.nc", evaluated[1]])
    assert list(found.models) == [tmp_path.name, "quarter"]


def test_one_example_has_no_intervals(evaluated, tmp_path):
    one = data(1)
    pair = [evaluated[2](f"one-{f.__name__}", f, one) for f in (half, quarter)]
    found = compare(pair)
    text = comparison.table(found)
    assert "no intervals: 1 test example is 1 block" in text and "nan" not in text
    comparison.write(found, tmp_path)
    written = json.loads((tmp_path / "comparison.json").read_text())
    assert written["scores"]["mse"]["forecasts"]["one-half"]["interval"] == [None, None]
    assert written["samples"] == 0


def test_a_model_that_gives_no_numbers_is_last(evaluated, tmp_path):
    broken = evaluated[2]("broken", lambda batch: half(batch) * np.nan)
    found = compare([broken, evaluated[0]])
    assert found.names[-1] == "broken"
    assert "broken minus persistence: mse +nan" in comparison.table(found)
    comparison.write(found, tmp_path)


class TestNames:
    def test_the_last_folders_that_differ(self, tmp_path):
        files = [tmp_path / x / "sums.nc" for x in ("a/mse", "b/mse", "b/persistence")]
        assert list(names.of_files(files, ["persistence"]).values()) == [
            "a/mse",
            "b/mse",
            "b/persistence",
        ]

    def test_labels_of_one_workdir(self, tmp_path):
        files = [tmp_path / "a" / x for x in ("sums.nc", "sums-later.nc")]
        assert list(names.of_files(files, []).values()) == ["sums", "sums-later"]
