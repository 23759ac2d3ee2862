"""What is shown on a terminal, and elsewhere."""

import logging
import sys

from earthformer_jax.training import progress


def test_lines_with_the_remaining_time(caplog):
    with caplog.at_level(logging.INFO, "earthformer_jax"):
        with progress.ProgressBar(0, 100) as bar:
            for step in (10, 20):
                bar.update(step, {"loss": 0.25})
            bar.say("validation")
    first, second, third = (record.getMessage() for record in caplog.records)
    assert first == "step 10/100  loss 0.25"  # its pace would include compilation
    assert second.startswith("step 20/100  loss 0.25") and "ETA 00:00" in second
    assert third == "validation"


def test_bar_on_a_terminal(caplog, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with caplog.at_level(logging.INFO, "earthformer_jax"):
        with progress.ProgressBar(40, 100) as bar:
            bar.update(70, {"loss": 0.25})
            bar.say("validation")
    printed = capsys.readouterr().err
    assert "70/100" in printed and "loss 0.25" in printed and "validation" in printed
    assert not caplog.records


def test_silent_processes(caplog, capsys):
    with caplog.at_level(logging.INFO, "earthformer_jax"):
        with progress.ProgressBar(0, 100, shows=False) as bar:
            bar.update(10, {"loss": 0.25})
            bar.say("validation")
    assert not caplog.records
    assert not capsys.readouterr().err
