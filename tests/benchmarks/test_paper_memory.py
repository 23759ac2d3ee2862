"""Memory and time of configs by what is computed again: the table, and wrong input."""

import pytest

from benchmarks import paper_memory


def test_a_config_that_does_not_exist_ends_before_anything_is_measured(
    monkeypatch, capsys
):
    monkeypatch.setattr(paper_memory, "measure", pytest.fail)
    with pytest.raises(SystemExit):
        paper_memory.main(["--configs", "enso:paper", "enso:nope"])
    assert "'nope' is unknown; use one of paper" in capsys.readouterr().err


@pytest.mark.parametrize("timed", [False, True])
def test_table(timed):
    row = dict(config="enso:paper", remat="blocks", examples=1, planned_mib=2048.0)
    text = paper_memory.table([row | (dict(seconds=0.5, ratio=1.25) if timed else {})])
    line = text.splitlines()[-1]
    assert line.startswith("| enso:paper | `blocks` | 2.00 |")
    assert ("1.25" in line) == timed
