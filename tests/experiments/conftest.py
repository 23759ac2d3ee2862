"""Experiments are scripts, which find each other in their own folder."""

import importlib
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="session")
def experiment():
    """Imports a script, or a module that scripts share, by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module
