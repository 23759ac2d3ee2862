"""The folder of compiled programs."""

import pathlib

import jax
import pytest

from earthformer_jax.run.compilation_cache import cache_compilations


@pytest.fixture(autouse=True)
def restore():
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_in_the_cache_folder_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache_compilations()
    folder = pathlib.Path(jax.config.jax_compilation_cache_dir)
    assert folder.is_dir() and tmp_path in folder.parents


def test_a_chosen_folder_is_kept(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    cache_compilations()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)


def test_not_where_it_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache_compilations()
    assert jax.config.jax_compilation_cache_dir is None
