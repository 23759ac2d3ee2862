"""The comparison of recurrent models: its arrays, its rows, one layer for real."""

import numpy as np
import pytest

from benchmarks import rival_cases, rivals


def a_side(seconds, mib):
    return dict(parameters=1000, median_s=seconds, peak_mib=mib - 100, total_mib=mib)


def test_arrays_are_the_same_in_every_process():
    first, second = (rival_cases.example("tiny_predrnn", 2) for _ in range(2))
    np.testing.assert_array_equal(first["inputs"], second["inputs"])
    assert first["targets"].shape == (2, 10, 16, 16, 1)
    kernel, recurrent, bias = rival_cases.layer_weights()
    assert kernel.shape == recurrent.shape == (3, 3, 32, 128)
    assert not bias.any()


def test_every_side_has_a_row():
    sides = {"ours": a_side(2.0, 400.0), "openstl": a_side(3.0, 600.0)}
    rows = [dict(case="predrnn", mode="train", batch=2, difference=2e-7, sides=sides)]
    missing = dict(sides, openstl=dict(missing="No module named 'openstl'"))
    rows.append(
        dict(case="phydnet", mode="train", batch=1, difference=None, sides=missing)
    )
    machine = dict(processor="CPU", cores=2, memory_gib=8, python="3.11")
    text = rivals.table(dict(machine=machine, rows=rows))
    assert "| predrnn | train | 2 | openstl | 1,000 | 3.00 | 1.50 | 500 | 600 |" in text
    assert "| phydnet | train | 1 | openstl | – | – |" in text
    assert "| No module named 'openstl' |" in text
    assert "Largest relative difference: predrnn 2.0e-07." in text


class Fixed:
    """A worker that has written its result."""

    def __init__(self, value):
        self.value = value

    def ask(self, command, path):
        assert command == "forecast"
        np.save(path, np.array([self.value, 4.0]))


def test_sides_have_to_agree(tmp_path):
    sides = {"ours": Fixed(1.0), "openstl": Fixed(1.0002)}
    assert rivals.compare("predrnn", sides, tmp_path) == pytest.approx(5e-5)
    sides["openstl"] = Fixed(1.1)
    with pytest.raises(rivals.DisagreementError, match="openstl differ by 0.025"):
        rivals.compare("predrnn", sides, tmp_path)


@pytest.mark.parametrize("options", [["--cases=lstm"], ["--modes=test"], ["--batch=0"]])
def test_unknown_options_are_refused(options):
    with pytest.raises(SystemExit):
        rivals.main(options)
