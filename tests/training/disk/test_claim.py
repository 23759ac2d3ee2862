"""A workdir has one writer, and is refused before any work if it cannot be written."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys

import pytest

from earthformer_jax.settings import ConfigError
from earthformer_jax.training.disk.claim import LOCK_FILE, check_writable, claim


def refused(workdir, message):
    with pytest.raises(ConfigError, match=message) as error:
        with claim(workdir):
            pass
    assert "\n" not in str(error.value)
    return str(error.value)


class TestOneWriter:
    def test_the_second_is_refused_and_the_first_is_named(self, tmp_path):
        with claim(tmp_path):
            message = refused(tmp_path, "is in use by process")
            assert f"process {os.getpid()} on {socket.gethostname()}" in message
            assert str(tmp_path) in message
            refused(tmp_path, "is in use")
        with claim(tmp_path):
            pass
        assert not any(tmp_path.iterdir())

    def test_by_another_name(self, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "run")
        with claim(tmp_path / "run"):
            refused(tmp_path / "link", "is in use")

    def test_what_a_killed_process_left_does_not_refuse(self, tmp_path):
        (tmp_path / LOCK_FILE).write_text('{"host": "elsewhere", "pid": 1}')
        with claim(tmp_path):
            holder = json.loads((tmp_path / LOCK_FILE).read_text())
            assert holder == {"host": socket.gethostname(), "pid": os.getpid()}

    def test_after_an_error(self, tmp_path):
        with pytest.raises(KeyError), claim(tmp_path):
            raise KeyError
        with claim(tmp_path):
            pass


class TestWithoutLocksOfTheFileSystem:
    @pytest.fixture(autouse=True)
    def no_locks(self, monkeypatch):
        def flock(descriptor, operation):
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(fcntl, "flock", flock)

    def leave(self, folder, host, pid):
        holder = json.dumps({"host": host, "pid": pid})
        (folder / ".lock-holder").write_text(holder)

    def test_the_second_is_refused(self, tmp_path):
        with claim(tmp_path):
            refused(tmp_path, f"in use by process {os.getpid()}")
        assert not any(tmp_path.iterdir())

    def test_a_process_of_this_host_that_has_ended(self, tmp_path):
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        self.leave(tmp_path, socket.gethostname(), ended.pid)
        with claim(tmp_path):
            pass

    def test_one_of_another_host_may_still_run(self, tmp_path):
        self.leave(tmp_path, "elsewhere", 1)
        refused(tmp_path, "process 1 on elsewhere .if it has ended, remove ")


class TestWritable:
    def test_new_folders_that_stay_empty_are_removed(self, tmp_path):
        with claim(tmp_path / "a" / "b"):
            assert (tmp_path / "a" / "b").is_dir()
        assert not any(tmp_path.iterdir())
        with claim(tmp_path / "a" / "b"):
            (tmp_path / "a" / "b" / "config.json").write_text("{}")
        assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["config.json"]

    @pytest.mark.parametrize("name", ["file", "file/run", "x" * 300])
    def test_impossible_folders(self, tmp_path, name):
        (tmp_path / "file").write_text("")
        refused(tmp_path / name, "cannot be written: ")
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_full_disk(self, tmp_path, monkeypatch):
        def full(descriptor, content):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        refused(tmp_path / "run", "cannot be written: No space left on device")
        assert not any(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["lr[1]", "a*", "b?", "[", "back\\slash"])
    def test_names_that_orbax_cannot_read(self, tmp_path, name):
        refused(tmp_path / name, "cannot hold checkpoints: its path contains")
        assert not any(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["a b", "ü", "new\nline", "{a,b}", "~", "50%"])
    def test_other_names(self, tmp_path, name):
        with claim(tmp_path / name):
            pass

    def test_before_scoring(self, tmp_path):
        check_writable(tmp_path)
        assert not any(tmp_path.iterdir())
        with pytest.raises(ConfigError, match="absent cannot be written: No such"):
            check_writable(tmp_path / "absent")
