"""Recognises the files of data sets that have their own config."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np

from earthformer_jax.data import tfds_source
from earthformer_jax.data.enso import gridded_sst
from earthformer_jax.data.readers import cf
from earthformer_jax.data.readers.layout import Undecided, Wanted
from earthformer_jax.data.readers.series import Cube, open_cube
from earthformer_jax.data.readers.times import is_monthly
from earthformer_jax.look.advice import Command

ICAR_FILES = ("CMIP_train.nc", "SODA_train.nc")
ICAR_DIMS = ("year", "month", "lat", "lon")
SEVIR_COLUMNS = ("id", "file_name", "file_index", "img_type", "time_utc")
MOVING_MNIST_FRAMES, MOVING_MNIST_SIZE = 20, 64
LEAST_MONTHS = 60


@dataclasses.dataclass(frozen=True)
class Known:
    """Files in a layout that has its own config.

    Attributes:
        lines: of the report: (what, text).
        problems: messages.
        proposals: for each kind of training that the files allow, commands of which the
            first that works is proposed.
    """

    lines: list[tuple[str, str]]
    problems: list[str]
    proposals: list[list[Command]]


def recognise(path: Path) -> Known | None:
    """A file or folder in a layout that has its own config.

    Args:
        path: an existing file or folder.

    Returns:
        what it contains and how to train on it; None if the layout is not recognised.
    """
    for look in (_prepared, _sevir, _icar, _nbody, _moving_mnist, _digits):
        known = look(path)
        if known is not None:
            return known
    return None


def is_monthly_sst(path: str, cube: Cube) -> bool:
    """Whether `configs/enso.py` can read files: monthly sea surface temperature.

    Args:
        path: of the files.
        cube: their contents.
    """
    if not is_monthly(cube.cadence) or cube.frames.shape[0] < LEAST_MONTHS:
        return False
    named = dataclasses.replace(gridded_sst.SST, has_unit=None)
    try:
        open_cube(path, Wanted(quantity=named))
    except Undecided:
        return True  # each of several may be the temperature
    except (ValueError, OSError):
        return False
    return True


def _prepared(path: Path) -> Known | None:
    if not path.is_dir() or not tfds_source.is_prepared(path):
        return None
    info = json.loads((path / tfds_source.INFO_FILE).read_text())
    name = str(info.get("name", "?"))
    splits = ", ".join(str(split.get("name")) for split in info.get("splits", ()))
    lines = [("format", f"prepared by TFDS: {name}, splits {splits}")]
    configs = {"icar_enso": "enso"} | {
        n: n for n in ("moving_mnist", "nbody_mnist", "sevir")
    }
    if name not in configs:
        there = ", ".join(configs)
        return Known(lines, [f"no config reads {name!r}; there are: {there}"], [])
    return Known(lines, [], [[Command(configs[name], {"path": str(path)})]])


def _sevir(path: Path) -> Known | None:
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
    period = f", {times[0]}..{times[-1]}" if times else ""
    lines = [
        ("format", "SEVIR: a catalog and HDF5 files of events"),
        (
            "catalog",
            f"{len(rows)} rows ({', '.join(kinds)}), {len(vil)} of vil{period}",
        ),
    ]
    options = {"path": str(catalog.parent)}
    if catalog.name != "CATALOG.csv":
        options["catalog_path"] = str(catalog)
    paper = Command("sevir", options)
    shares, some = {"split": "fraction"}, {"skip_missing_files": "True"}
    commands = [paper, paper.also(shares), paper.also(some), paper.also(some | shares)]
    return Known(lines, [], [commands])


def _icar(path: Path) -> Known | None:
    files = [path / name for name in ICAR_FILES] if path.is_dir() else [path]
    lines, problems = [], []
    for file in files:
        if file.suffix != ".nc" or not file.is_file():
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
        rows = f"{sizes['year']} rows of {sizes['month']} months"
        grid = f"{sizes['lat']} x {sizes['lon']} cells"
        lines.append(("file", f"{file.name}: {names}; {rows} on {grid}"))
        if not label.is_file() or label == file:
            problems.append(f"its labels {label.name} are not in its folder")
    if not lines:
        return None
    lines.insert(0, ("format", "ICAR-ENSO: rows of overlapping months"))
    return Known(lines, problems, [[Command("enso", {"path": str(path)})]])


def _nbody(path: Path) -> Known | None:
    files = sorted(path.glob("nbody_*.npz")) if path.is_dir() else [path]
    files = [f for f in files if f.name.startswith("nbody_") and f.suffix == ".npz"]
    if not files:
        return None
    folder = path if path.is_dir() else path.parent
    lines = [
        ("format", "N-body MNIST: parameters of sequences, which are rendered"),
        ("files", ", ".join(f.name for f in files)),
    ]
    return Known(lines, [], [[Command("nbody_mnist", {"path": str(folder)})]])


def _moving_mnist(path: Path) -> Known | None:
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
    some = array[:, :8]
    sequences = f"{array.shape[1]} of {array.shape[0]} frames of 64 x 64"
    lines = [
        ("format", "MovingMNIST: uint8 (frame, sequence, row, column)"),
        ("sequences", f"{sequences}, values {some.min()}..{some.max()}"),
    ]
    return Known(lines, [], [[Command("moving_mnist", {"path": str(path)})]])


def _digits(path: Path) -> Known | None:
    if path.is_dir():
        files = sorted(path.glob("*-images-idx3-ubyte*"))
    else:
        files = [path] if "-idx3-ubyte" in path.name else []
    if not files:
        return None
    lines = [
        ("format", "idx files of MNIST: images of digits, no sequences"),
        ("files", ", ".join(f.name for f in files)),
    ]
    names = ("moving_mnist", "nbody_mnist")
    return Known(lines, [], [[Command(n, {"digits": str(path)})] for n in names])
