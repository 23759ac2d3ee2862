"""Outputs appear complete or not at all, also if the process is killed."""

import os
import subprocess
import sys
import textwrap

import pytest

from earthformer_jax.forecast import unfinished
from earthformer_jax.forecast.unfinished import completed


def fill(path, text, kind):
    if kind == "file":
        path.write_text(text)
    else:
        path.mkdir()
        (path / "part").write_text(text)


def content(path):
    return (path if path.is_file() else path / "part").read_text()


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_new_replaces_old(tmp_path, monkeypatch, kind, exchange):
    if not exchange:
        monkeypatch.setattr(unfinished, "_exchange", lambda a, b: False)
    path = tmp_path / "new" / "f"
    for text in ("1", "2", "3"):
        with completed(path) as work:
            assert not work.exists()
            fill(work, text, kind)
        assert content(path) == text
        assert os.listdir(path.parent) == ["f"]


def test_what_a_link_points_to_is_replaced(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    with completed(tmp_path / "link") as work:
        work.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


def test_two_processes_cannot_write_the_same(tmp_path):
    with completed(tmp_path / "f") as work:
        with (
            pytest.raises(BlockingIOError, match="another process is writing"),
            completed(tmp_path / "f"),
        ):
            pass
        work.write_text("mine")
    assert (tmp_path / "f").read_text() == "mine"


# Children are killed at their first, second, ... call of the system. The old content or
# the whole new one is there then, and the next run leaves nothing else.
KILLED = textwrap.dedent("""
    import contextlib, os, pathlib, signal, sys
    from earthformer_jax.forecast import unfinished

    folder, kind = pathlib.Path(sys.argv[1]), sys.argv[2]
    path, states = folder / "f", []

    def fill(work, text):
        if kind == "file":
            return work.write_text(text)
        work.mkdir()
        for name in "ab":
            (work / name).write_text(text)

    def write(text, killed_at):
        events = iter(range(killed_at))

        def event(*_):
            if text == "new" and next(events, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(event)
        if "slow" in sys.argv:
            unfinished._exchange = lambda a, b: False
        with unfinished.completed(path) as work:
            fill(work, text)

    def run(*arguments):
        child = os.fork()
        if not child:
            write(*arguments)
            os._exit(0)
        return os.waitpid(child, 0)[1]

    def content():
        files = [path] if kind == "file" else sorted(path.iterdir())
        return [file.read_text() for file in files]

    for killed_at in range(1000):
        assert run("old", 0) == 0
        assert os.listdir(folder) == ["f"], os.listdir(folder)
        status = run("new", killed_at)
        if path.exists():
            states.append(set(content()))
            assert len(states[-1]) == 1 and len(content()) == 1 + (kind != "file")
        else:  # until the next run, where two names cannot be exchanged
            assert "slow" in sys.argv
            with contextlib.suppress(KeyError), unfinished.completed(path):
                raise KeyError
            assert content() == ["old", "old"]
        if status == 0:
            break
    print(states.count({"old"}), states.count({"new"}))
""")


@pytest.mark.parametrize("kind", [("file",), ("folder",), ("folder", "slow")])
def test_killed_at_any_step(tmp_path, kind):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), *kind],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    old, new = map(int, done.stdout.split())
    assert old > 3 and new > 1
