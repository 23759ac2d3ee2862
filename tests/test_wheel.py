"""The package as it is installed: from a wheel, used in an empty folder."""

import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = "earthformer_jax configs setup.py setup.cfg pyproject.toml README.md LICENSE"

# Says how it was started, and stops.
SPY = """
import json, os, pathlib, sys
import earthformer_jax

def get_config():
    pathlib.Path("seen.json").write_text(json.dumps({
        "package": earthformer_jax.__file__,
        "tunables": os.environ.get("GLIBC_TUNABLES", ""),
        "arguments": sys.argv[1:],
    }))
    raise ValueError("seen")
"""


def run(command, cwd, **environment):
    """Runs a command that does not see the checkout."""
    keep = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=keep | environment,
        capture_output=True,
        text=True,
    )


def copy_sources(folder):
    """Copies what the wheel is made of into a new folder."""
    folder.mkdir()
    for name in SOURCES.split():
        source, copy = ROOT / name, folder / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy)


def build(sources, target):
    """The wheel of a folder; with the setuptools that is here, if it is new enough."""
    major = int(importlib.metadata.version("setuptools").split(".")[0])
    isolation = ["--no-build-isolation"] if major >= 77 else []
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", *isolation]
    done = run([*command, "-w", target, sources], target)
    assert done.returncode == 0, done.stderr
    (wheel,) = pathlib.Path(target).glob("*.whl")
    return wheel


def environment_without_the_package(folder):
    """Makes an environment that has what this one has, but not the package itself.

    Files such as an editable install's are only read in the first.

    Returns:
        the path of its Python.
    """
    venv.create(folder, with_pip=False)
    paths, here = sysconfig.get_paths(vars={"base": str(folder)}), sysconfig.get_paths()
    (pathlib.Path(paths["purelib"]) / "needs.pth").write_text(
        "\n".join(dict.fromkeys([here["purelib"], here["platlib"]])) + "\n"
    )
    return pathlib.Path(paths["scripts"]) / "python"


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The folder of programs of an environment in which the wheel is installed."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("needs pip")
    folder = tmp_path_factory.mktemp("wheel")
    copy_sources(folder / "sources")
    wheel = build(folder / "sources", folder)
    python = environment_without_the_package(folder / "env")
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps"]
    done = run([*command, wheel], folder)
    assert done.returncode == 0, done.stderr
    return python.parent


@pytest.mark.slow
class TestWheel:
    def test_a_config_by_its_name_from_an_empty_folder(self, programs, tmp_path):
        done = run(
            [
                *(programs / "earthformer-jax", "--config=configs/climate.py:test"),
                "--config.model.name=persistence",
            ],
            tmp_path,
        )
        assert done.returncode == 0, done.stderr
        scores = json.loads(
            next(tmp_path.glob("runs/climate-test*/scores.json")).read_text()
        )
        assert "persistence" in scores["forecasts"]

    def test_the_installed_configs_are_listed(self, programs, tmp_path):
        done = run([programs / "earthformer-jax", "--config=absent.py"], tmp_path)
        assert done.returncode == 2
        names = sorted(f"configs/{path.name}" for path in ROOT.glob("configs/*.py"))
        assert done.stderr == (
            "error: the config file absent.py does not exist; the installed ones are "
            f"{', '.join(names)}\n"
        )

    def test_configs_and_trained_models_in_python(self, programs, tmp_path):
        program = (
            "import earthformer_jax as ef; "
            "print(ef.load_config('enso:test').data.name, ef.__file__); "
            "model = ef.load('nbody-mnist'); print(model.input_shape, model.step)"
        )
        done = run([programs / "python", "-c", program], tmp_path)
        assert done.returncode == 0, done.stderr
        first, second = done.stdout.splitlines()
        name, file = first.split()
        assert name == "enso" and pathlib.Path(file).is_relative_to(programs.parent)
        assert pathlib.Path(file).with_name("py.typed").exists()
        assert second == "(10, 32, 32, 1) 800"

    @pytest.mark.parametrize(
        "start",
        [
            ["earthformer-jax"],
            ["python", "-m", "earthformer_jax"],
            ["python", "-m", "earthformer_jax.main"],
        ],
        ids=" ".join,
    )
    def test_every_way_to_start(self, programs, tmp_path, start):
        """The wheel's package, its arguments, and the restart with large pages."""
        (tmp_path / "spy.py").write_text(SPY)
        arguments = ["--config=spy.py", "--workdir=a folder"]
        environment = {"GLIBC_TUNABLES": "glibc.malloc.check=0"}
        command = [programs / start[0], *start[1:], *arguments]
        done = run(command, tmp_path, **environment)
        said = "error: config 'spy.py': spy.py, line 11: ValueError: seen\n"
        assert (done.returncode, done.stderr) == (2, said)
        seen = json.loads((tmp_path / "seen.json").read_text())
        assert pathlib.Path(seen["package"]).is_relative_to(programs.parent)
        assert seen["arguments"] == arguments
        if sys.platform == "linux":
            assert "glibc.malloc.hugetlb=1" in seen["tunables"]
