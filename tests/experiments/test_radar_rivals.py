"""The table of rivals, with a rival that needs no compilation."""

import json

import h5py
import numpy as np
import pytest


@pytest.fixture
def script(experiment, monkeypatch):
    module = experiment("radar_rivals")

    def half(batch):
        return np.repeat(batch["inputs"][:, -1:] / 2, 12, axis=1)

    monkeypatch.setattr(module, "references", lambda *_: {"s_prog": half})
    return module


@pytest.fixture
def codes():
    """Five events of one window each, one of them partly missing."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 250, size=(5, 25, 16, 8)).astype(np.uint8)
    codes[2, :, :4] = 255
    return codes


def test_scores_of_files(script, codes, tmp_path):
    """Both kinds of files, by hand; a second call makes nothing again."""
    np.save(tmp_path / "a.npy", codes)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["vil"] = np.moveaxis(codes, 1, -1)
    out = tmp_path / "out"
    command = [f"--events=a={tmp_path / 'a.npy'},b={tmp_path / 'b.h5'}", "--windows=0"]
    command += ["--space_step=1", f"--out={out}"]
    script.main(command)
    text = (out / "table.md").read_text()
    tables = text.split("**b**")
    assert tables[0].splitlines()[2:] and len(tables) == 2
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows[:2] == rows[2:] and "persistence" in rows[0] and "s_prog" in rows[1]
    known = codes != 255
    x = np.where(known, codes, 0) / 255
    errors = (np.repeat(x[:, 12:13], 12, axis=1) - x[:, 13:]) ** 2
    mse = errors[known[:, 13:]].mean()
    assert rows[0].startswith(f"| `persistence` | {mse:.5f} (")
    half = (np.repeat(x[:, 12:13] / 2, 12, axis=1) - x[:, 13:]) ** 2
    gap = mse - half[known[:, 13:]].mean()
    assert f"| {gap:+.5f} (" in rows[0]
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert len(times) == 4
    script.main(command)
    assert times == {path: path.stat().st_mtime_ns for path in out.glob("*.json")}


def test_a_row_of_other_data_is_refused(script, codes, tmp_path):
    np.save(tmp_path / "a.npy", codes)
    command = [f"--events=a={tmp_path / 'a.npy'}", "--windows=0", "--space_step=1"]
    command += [f"--out={tmp_path / 'out'}"]
    script.main(command)
    np.save(tmp_path / "a.npy", codes[:4])
    with pytest.raises(ValueError, match="is of other data; choose another --out"):
        script.main(command)


def test_few_events_have_no_intervals(script, codes, tmp_path):
    np.save(tmp_path / "a.npy", codes[:3])
    command = [f"--events=a={tmp_path / 'a.npy'}", "--windows=0", "--space_step=1"]
    script.main([*command, f"--out={tmp_path / 'out'}"])
    text = (tmp_path / "out" / "table.md").read_text()
    assert " to " not in text and "`persistence`" in text
    row = json.loads((tmp_path / "out" / "a-s_prog.json").read_text())
    assert row["windows"] == 3


def test_other_files_are_refused(script, codes, tmp_path):
    np.save(tmp_path / "a.npy", codes.astype(float))
    with pytest.raises(ValueError, match=r"float64 \[5, 25, 16, 8\]; expected uint8"):
        script.read_events(tmp_path / "a.npy")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["rate"] = 0
    with pytest.raises(ValueError, match="no `vil`; expected a file of SEVIR"):
        script.read_events(tmp_path / "b.h5")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--events=a=x.npy,a=y.npy", "--events=a=y.npy: expected NAME=FILE with"),
        ("--events=x.npy", "--events=x.npy: expected NAME=FILE"),
        ("--workdirs=a/unet,b/unet", "the last parts of the paths name the rows"),
        ("--workdirs=runs/s_prog", "expected names that differ, and none of pers"),
    ],
)
def test_names_that_are_not_unique(script, capsys, tmp_path, wrong, message):
    """One of two rows of the same name would be left out."""
    with pytest.raises(SystemExit):
        script.main([wrong, "--windows=0", f"--out={tmp_path}"])
    assert message in capsys.readouterr().err
