"""Recognises the files of data sets that have their own config."""

import csv
import dataclasses
import json
import re
import shlex
from pathlib import Path

import numpy as np

from earthformer_jax import data
from earthformer_jax.data import tfds_source
from earthformer_jax.data.enso import gridded_sst
from earthformer_jax.data.readers import cf
from earthformer_jax.data.readers.layout import Wanted
from earthformer_jax.data.readers.series import Cube, open_cube
from earthformer_jax.data.readers.times import is_monthly

ICAR_FILES = ("CMIP_train.nc", "SODA_train.nc")
ICAR_DIMS = ("year", "month", "lat", "lon")
SEVIR_COLUMNS = ("id", "file_name", "file_index", "img_type", "time_utc")
MOVING_MNIST_FRAMES, MOVING_MNIST_SIZE = 20, 64
IDX_MAGIC = b"\x00\x00\x08"
LEAST_MONTHS = 60


def describe(path: Path) -> list[str] | None:
    """Lines about a file or folder in a layout that has its own config.

    Args:
        path: an existing file or folder.

    Returns:
        the lines of the report after the first; None if the layout is not recognised.
    """
    for look in (_prepared, _sevir, _icar, _nbody, _moving_mnist, _digits):
        lines = look(path)
        if lines is not None:
            return lines
    return None


def command(config: str, *options: str, path: str = "") -> str:
    """The training command.

    Args:
        config: file and variant, "configs/sevir.py:quick".
        options: further flags.
        path: for --config.data.path.
    """
    flags = [f"--config={config}"]
    if path:
        flags.append(f"--config.data.path={shlex.quote(path)}")
    return " ".join(["python -m earthformer_jax.main", *flags, *options])


def is_monthly_sst(path: str, cube: Cube) -> bool:
    """Whether `configs/enso.py` can read files: monthly sea surface temperature.

    Args:
        path: of the files.
        cube: their contents.
    """
    if not is_monthly(cube.cadence) or cube.frames.shape[0] < LEAST_MONTHS:
        return False
    named = dataclasses.replace(gridded_sst.SST, units=())
    try:
        open_cube(path, Wanted(quantity=named))
    except ValueError:
        return False
    return True


def _loaded(config: dict, file: str) -> list[str]:
    """Lines with the description of a data set, or with the problem."""
    try:
        dataset = data.load(config, 0)
    except (ValueError, OSError) as error:
        return [f"problem     {error}"]
    return [
        f"data        {dataset.data.description}",
        "problems    none found",
        f"train with  {command(file, path=config['path'])}",
    ]


def _prepared(path: Path) -> list[str] | None:
    if not path.is_dir() or not tfds_source.is_prepared(path):
        return None
    info = json.loads((path / tfds_source.INFO_FILE).read_text())
    name = str(info.get("name", "?"))
    splits = ", ".join(str(split.get("name")) for split in info.get("splits", ()))
    lines = [f"format      prepared by TFDS: {name}, splits {splits}"]
    known = {"icar_enso": "enso"} | {
        n: n for n in ("moving_mnist", "nbody_mnist", "sevir")
    }
    if name not in known:
        return [*lines, f"problem     no config reads {name!r}; there are: {known}"]
    file = f"configs/{known[name]}.py:quick"
    return [*lines, f"train with  {command(file, path=str(path))}"]


def _sevir(path: Path) -> list[str] | None:
    catalog = path / "CATALOG.csv" if path.is_dir() else path
    if catalog.suffix.lower() != ".csv" or not catalog.is_file():
        return None
    with catalog.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file)
        if not set(SEVIR_COLUMNS) <= set(reader.fieldnames or ()):
            return None
        rows = list(reader)
    kinds = sorted({row.get("img_type") or "?" for row in rows})
    vil = [row for row in rows if row.get("img_type") == "vil"]
    times = sorted(row.get("time_utc") or "" for row in vil)
    lines = [
        "format      SEVIR: a catalog and HDF5 files of events",
        f"catalog     {len(rows)} rows ({', '.join(kinds)}), {len(vil)} of vil"
        + (f", {times[0]}..{times[-1]}" if times else ""),
    ]
    folder = str(catalog.parent)
    if catalog.name != "CATALOG.csv":
        option = f"--config.data.catalog_path={shlex.quote(str(catalog))}"
        train = command("configs/sevir.py:quick", option, path="FOLDER_OF_THE_FILES")
        return [*lines, f"train with  {train}"]
    loaded = _loaded({"name": "sevir", "path": folder}, "configs/sevir.py:quick")
    if loaded[0].startswith("problem"):
        words = re.sub(r"\s+", " ", loaded[0].removeprefix("problem").strip())
        retry = command(
            "configs/sevir.py:quick",
            "--config.data.split=fraction",
            "--config.data.max_missing=100",
            path=folder,
        )
        return [
            *lines,
            f"problem     with the settings of the paper: {words}",
            f"train with  {retry}",
        ]
    return lines + loaded


def _icar(path: Path) -> list[str] | None:
    files = [path / name for name in ICAR_FILES] if path.is_dir() else [path]
    files = [file for file in files if file.is_file()]
    lines = []
    for file in files:
        if file.suffix != ".nc":
            continue
        try:
            with cf.opened(file) as dataset:
                if "sst" not in dataset or dataset["sst"].dims != ICAR_DIMS:
                    continue
                sizes = dict(dataset["sst"].sizes)
                names = ", ".join(map(str, dataset.data_vars))
        except ValueError:
            continue
        label = file.with_name(file.name.replace("train", "label"))
        grid = f"{sizes['lat']} x {sizes['lon']} cells"
        lines.append(
            f"file        {file.name}: {names}; {sizes['year']} rows of "
            f"{sizes['month']} months on {grid}"
        )
        if not label.is_file() or label == file:
            lines.append(f"problem     its labels {label.name} are not in its folder")
    if not lines:
        return None
    train = f"train with  {command('configs/enso.py:quick', path=str(path))}"
    return ["format      ICAR-ENSO: rows of overlapping months", *lines, train]


def _nbody(path: Path) -> list[str] | None:
    files = sorted(path.glob("nbody_*.npz")) if path.is_dir() else [path]
    files = [f for f in files if f.name.startswith("nbody_") and f.suffix == ".npz"]
    if not files:
        return None
    folder = path if path.is_dir() else path.parent
    return [
        "format      N-body MNIST: parameters of sequences, which are rendered",
        f"files       {', '.join(f.name for f in files)}",
        f"train with  {command('configs/nbody_mnist.py:quick', path=str(folder))}",
    ]


def _moving_mnist(path: Path) -> list[str] | None:
    if path.is_dir():
        path = path / "mnist_test_seq.npy"
    if path.suffix != ".npy" or not path.is_file():
        return None
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError):
        return None
    frame = (MOVING_MNIST_SIZE, MOVING_MNIST_SIZE)
    shaped = array.ndim == 4 and array.shape[2:] == frame
    if not shaped or array.shape[0] != MOVING_MNIST_FRAMES or array.dtype != np.uint8:
        return None
    return [
        "format      MovingMNIST: uint8 (frame, sequence, row, column)",
        f"sequences   {array.shape[1]} of {array.shape[0]} frames of 64 x 64, values "
        f"{array[:, :8].min()}..{array[:, :8].max()}",
        f"train with  {command('configs/moving_mnist.py:quick', path=str(path))}",
    ]


def _digits(path: Path) -> list[str] | None:
    if path.is_dir():
        files = sorted(path.glob("*-images-idx3-ubyte*"))
    else:
        files = [path] if "-idx3-ubyte" in path.name else []
    if not files:
        return None
    folder = shlex.quote(str(path))
    return [
        "format      idx files of MNIST: images of digits, no sequences",
        f"files       {', '.join(f.name for f in files)}",
        "train with  "
        + command("configs/moving_mnist.py:quick", f"--config.data.digits={folder}"),
        "         or "
        + command("configs/nbody_mnist.py:quick", f"--config.data.digits={folder}"),
    ]
