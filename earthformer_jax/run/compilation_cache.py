"""Compiled programs, kept from one process to the next."""

import os
import pathlib
import platform
import tempfile

import jax


def cache_compilations() -> None:
    """Keeps compiled programs in the user's cache folder, if it is writable.

    JAX_COMPILATION_CACHE_DIR selects another folder. Each machine has its own: code
    compiled for one CPU may not run on another that shares the home folder.
    """
    if jax.config.jax_compilation_cache_dir:  # pyright: ignore (set by jax at run time)
        return
    try:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(home, "earthformer_jax", "compiled", platform.node())
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
