"""The folder of compiled programs."""

import os

import pytest

from earthformer_jax.run.programs.store import SUFFIX, Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "programs")


def file_of(store, name):
    return store.folder / f"{name}{SUFFIX}"


def test_what_is_written_is_read(store):
    assert store.read("a") is None
    store.write("a", b"one")
    store.write("b", b"")
    assert (store.read("a"), store.read("b")) == (b"one", b"")
    store.remove("a")
    store.remove("a")
    assert store.read("a") is None
    assert store.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "of another name"])
def test_damaged_files_are_ignored_with_one_line(store, caplog, damage):
    store.write("a", b"some program")
    path, content = file_of(store, "a"), file_of(store, "a").read_bytes()
    if damage == "of another name":
        path = path.rename(file_of(store, "b"))
    else:
        cut = {"cut": content[:-1], "changed": content[:-1] + b"!", "empty": b""}
        path.write_bytes(cut[damage])
    name = path.name.removesuffix(SUFFIX)
    assert store.read(name) is None
    assert caplog.messages == [f"{path} is damaged; it is made again"]
    store.write(name, b"again")
    assert store.read(name) == b"again"


@pytest.mark.parametrize("which", ["file", "folder"])
def test_what_others_can_write_is_never_read(store, caplog, which):
    store.write("a", b"some program")
    path = store.folder if which == "folder" else file_of(store, "a")
    path.chmod(path.stat().st_mode | 0o020)
    assert store.read("a") is None
    assert len(caplog.messages) == 1 and "chmod go-w" in caplog.text
    if which == "folder":
        store.write("b", b"another")
        assert not file_of(store, "b").exists()


def test_of_another_user(store, monkeypatch):
    store.write("a", b"some program")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert store.read("a") is None


def test_what_was_not_used_for_longest_makes_room(tmp_path):
    store = Store(tmp_path, most_bytes=300)
    for number, name in enumerate("abc"):
        store.write(name, bytes(60))  # 92 with its digest
        os.utime(file_of(store, name), (number, number))
    assert store.read("a") is not None  # it is used
    store.write("d", bytes(60))
    assert [store.read(x) is not None for x in "abcd"] == [True, False, True, True]
    store.write("large", bytes(300))
    assert store.read("large") is None and store.read("d") is not None


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "programs")
    store.write("a", b"")
    assert store.read("a") is None
