"""The notebooks, run from the first cell to the last at small sizes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import nbclient
import nbformat
import numpy as np
import pytest
import yaml
from jupyter_client.manager import AsyncKernelManager

import earthformer_jax
from earthformer_jax.interop import official
from earthformer_jax.run import parts
from tests.interop.test_official import ENSO, depth
from tests.test_wheel import copy_sources, environment_without_the_package

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
OLD_JAX = "0.7.2"  # that of Colab's images in August 2026

# Values of the cell tagged "parameters".
SMALL = {
    "1_quick_start": {"CONFIG": '"climate:test,persistence"'},
    "2_own_netcdf": {"CONFIG": '"custom:test,persistence"', "CHANGES": "{}"},
    "3_functional_api": {"GRID": "(4, 8, 8)", "STEPS": "3"},
    "4_official_weights": {"WEIGHTS": '"small.npz"', "CONFIG": '"small.yaml"'},
}


def read(name, **values):
    """A notebook, with other values of its parameters."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    for parameter, value in values.items():
        line = re.compile(rf"^{parameter} = .*$", re.M)
        assert line.search(cell.source), f"{name} has no parameter {parameter}"
        cell.source = line.sub(lambda _, v=f"{parameter} = {value}": v, cell.source)
    return notebook


def run(notebook, folder, manager=None):
    """Runs every cell in a folder; an error in one of them fails."""
    resources = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(
        notebook, manager, timeout=600, resources=resources
    )
    client.execute()
    return notebook


def write_weights(folder):
    """As the published ones for El Nino, of a narrower model, with its yaml file."""
    shapes = ENSO["input_shape"], ENSO["target_shape"]
    options = ENSO | depth(1, 1) | dict(base_units=16)
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({"model": plain}))
    config = earthformer_jax.load_config(str(path))
    model = parts.make_model(config, *shapes)
    like = parts.check_model(config, model, *shapes)
    rng = np.random.default_rng(0)
    draw = lambda x: rng.normal(0, 0.02, x.shape).astype(np.float32)  # noqa: E731
    weights = official.state_dict_from_params(jax.tree.map(draw, like), model)
    np.savez(folder / "small.npz", **weights)


def test_all_are_tested():
    assert set(NAMES) == set(SMALL)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_stored(name):
    """No outputs, a badge with its own address, and the version of the package."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    tag = f"v{earthformer_jax.__version__}"
    assert f"/blob/{tag}/experiments/notebooks/{name}.ipynb" in notebook.cells[0].source
    assert f'VERSION = "{tag}"' in code[0].source
    first = nbformat.read(FOLDER / f"{NAMES[0]}.ipynb", as_version=4)
    assert code[0].source == first.cells[1].source


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES[1:])
def test_every_cell(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    if name == "4_official_weights":
        write_weights(tmp_path)
    run(read(name, **SMALL[name]), tmp_path)


@pytest.mark.slow
def test_every_cell_of_the_first_in_place_of_an_older_jax(tmp_path, monkeypatch):
    """The first cell installs the package and a newer jax; the rest then runs."""
    notebook = read("1_quick_start", **SMALL["1_quick_start"])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    python = environment_without_the_package(tmp_path / "environment")
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps"]
    old = [f"jax=={OLD_JAX}", f"jaxlib=={OLD_JAX}"]
    done = subprocess.run([*pip, *old], capture_output=True, text=True)
    if done.returncode:
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        run(notebook, tmp_path)
        pytest.skip(f"jax {OLD_JAX} cannot be installed here: {done.stderr[-200:]}")
    sources = tmp_path / "sources"
    copy_sources(sources)
    monkeypatch.setenv("EARTHFORMER_JAX_SOURCE", sources.as_uri())
    manager = AsyncKernelManager(kernel_name="python3")
    assert manager.kernel_spec is not None
    manager.kernel_spec.argv[0] = str(python)
    run(notebook, tmp_path, manager)
    code = "import earthformer_jax, jax; print(jax.__version__, jax.__file__)"
    found = subprocess.check_output([python, "-c", code], text=True, cwd=os.sep)
    version, file = found.split()
    assert version != OLD_JAX
    assert Path(file).is_relative_to(tmp_path)


def test_jax_in_use_must_be_restarted():
    """An old jax that was already imported cannot be exchanged in a running kernel."""
    first = nbformat.read(FOLDER / f"{NAMES[0]}.ipynb", as_version=4).cells[1].source
    code = (
        "import sys, types, importlib.util, subprocess\n"
        "sys.modules['jax'] = types.ModuleType('jax')\n"
        "importlib.util.find_spec = lambda name: None\n"
        "subprocess.run = lambda command, **_: types.SimpleNamespace(stdout='')\n"
    )
    command = [sys.executable, "-c", code + first]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode
    assert "restart" in done.stderr
