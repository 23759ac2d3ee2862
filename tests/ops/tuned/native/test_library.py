"""Compiling, loading, and doing without functions in C++."""

import configparser
import fnmatch
import logging
import pathlib
import stat
import subprocess

import pytest

from earthformer_jax.ops.tuned.native import library


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """As in a new process, with short files; the folder for what is compiled."""
    for name in library.SOURCES + library.HEADERS:
        (tmp_path / name).write_text(f"// {name}\n")
    monkeypatch.setattr(library, "HERE", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(library.SWITCH, raising=False)
    monkeypatch.setattr(library, "_loaded", library._loaded.__wrapped__)
    monkeypatch.setattr(library, "_register", lambda *_: None)
    return tmp_path / "cache" / "earthformer_jax" / "native"


needs_compiler = pytest.mark.skipif(
    library._command() is None, reason="needs a C++ compiler (c++, g++ or clang++)"
)


@needs_compiler
def test_these_sources_compile():
    command = library._command() or []
    with library._folder() as folder:
        assert library._load(command, folder / f"{library._digest(command)}.so")


@needs_compiler
def test_compiled_once(fresh, monkeypatch):
    version = library.version()
    assert [path.name for path in fresh.iterdir()] == [f"{version}.so"]
    monkeypatch.setattr(subprocess, "run", None)
    assert library.version() == version


@needs_compiler
def test_a_damaged_file(fresh, caplog):
    fresh.mkdir(parents=True)
    command = library._command() or []
    damaged = fresh / f"{library._digest(command)}.so"
    damaged.write_bytes(b"\x7fELF")
    with caplog.at_level(logging.INFO, logger=library.logger.name):
        assert library.version()
    assert "compiled again" in caplog.text


@needs_compiler
def test_a_folder_that_is_not_writable(fresh):
    fresh.parents[1].write_text("a file where the folder should be")
    assert library.version()


@needs_compiler
def test_expected_without_compiling(fresh, monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    expected = library.expected_version()
    monkeypatch.undo()
    assert not fresh.exists()
    assert len(expected or "") == 64


def test_no_compiler(fresh, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(fresh))
    assert library.version() is None
    assert not library.available()


def test_a_compiler_that_fails(fresh, monkeypatch, tmp_path, caplog):
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho 'no room left' >&2\nexit 3\n")
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(compiler))
    with caplog.at_level(logging.INFO, logger=library.logger.name):
        assert library.version() is None
    assert "no room left" in caplog.text
    assert not list(fresh.glob("*.so"))


def test_a_compiler_with_options(monkeypatch):
    monkeypatch.setenv("CXX", "sh -c")
    assert (library._command() or [])[:2] == ["sh", "-c"]


def test_switched_off(monkeypatch):
    monkeypatch.setenv(library.SWITCH, "0")
    assert library.version() is None
    with pytest.raises(ValueError, match="attention: there is no C"):
        library.target("attention")


def test_other_code_has_another_version(monkeypatch):
    before = library._digest(["c++"])
    assert library._digest(["c++", "-O2"]) != before
    assert library._digest(["c++"]) == before
    monkeypatch.setattr(library, "_processor", lambda: b"another")
    assert library._digest(["c++"]) != before


def test_every_file_counts_and_is_installed():
    names = {*library.SOURCES, *library.HEADERS}
    assert names == {
        p.name for p in library.HERE.iterdir() if p.suffix in (".cc", ".h")
    }
    config = configparser.ConfigParser()
    config.read(pathlib.Path(__file__).parents[4] / "setup.cfg")
    patterns = config["options.package_data"][library.__package__ or ""].split(", ")
    assert all(any(fnmatch.fnmatch(name, p) for p in patterns) for name in names)
