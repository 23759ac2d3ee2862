"""Finds the files that a path or pattern refers to, and detects their formats."""

import glob
import re
from collections import Counter
from pathlib import Path

import h5py

from earthformer_jax.data.readers.arrays import Hdf5File, NpyFile
from earthformer_jax.data.readers.layout import Wanted, nearest
from earthformer_jax.data.readers.netcdf import NamedFile
from earthformer_jax.data.readers.paths import existing

FORMATS = "NetCDF, Zarr, HDF5 or .npy"
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")
ZARR_FILES = ("zarr.json", ".zgroup", ".zmetadata")
MAGIC = re.compile(r"[*?\[]")  # characters that make a path a pattern

SeriesFile = NamedFile | Hdf5File | NpyFile


def find(path: str) -> list[Path]:
    """The files or Zarr stores that a path or pattern refers to, sorted by name.

    Numbers in names sort as numbers: "f2.npy" comes before "f10.npy".

    Raises:
        FileNotFoundError: if there are none; the message suggests similar names.
        ValueError: if it is a folder of files.
    """
    if MAGIC.search(path) and not Path(path).expanduser().exists():
        matches = glob.glob(str(Path(path).expanduser()), recursive=True)
        if not matches:
            raise FileNotFoundError(_no_match(path))
        return sorted(map(Path, matches), key=_by_number)
    found = existing(path, "path")
    if found.is_dir() and not is_zarr(found):
        raise ValueError(_folder(found))
    return [found]


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return any((path / name).exists() for name in ZARR_FILES)


def open_file(path: Path, wanted: Wanted) -> SeriesFile:
    """Opens a file of any of the formats and reads its layout.

    Raises:
        ValueError: if it has none of the formats, is damaged, or does not contain the
            requested data.
    """
    return kind_of(path)(path, wanted)


def kind_of(path: Path) -> type[SeriesFile]:
    """The reader for a file, chosen by its first bytes.

    Raises:
        ValueError: if there is none.
    """
    if path.is_dir():
        if is_zarr(path):
            return NamedFile
        raise ValueError(_folder(path))
    with path.open("rb") as file:
        start = file.read(8)
    suffix = path.suffix.lower()
    if start[:3] == b"CDF":
        return NamedFile
    if start[:4] == b"\x89HDF":
        return _hdf5_kind(path)
    if start[:6] == b"\x93NUMPY":
        return NpyFile
    remedy = {
        b"GRIB": "it is GRIB; convert it, for example with "
        f"'cdo -f nc copy {path.name} {path.stem}.nc'",
        b"PK\x03\x04": "it is an archive; save one array with np.save, or unpack it",
        b"\x1f\x8b": "it is compressed; unpack it with gunzip",
    }
    for signature, words in remedy.items():
        if start.startswith(signature):
            raise ValueError(f"path={path} cannot be read: {words}")
    raise ValueError(
        f"path={path} is not {FORMATS} "
        f"({path.stat().st_size} bytes starting with {start!r})"
        + ("; it is truncated or damaged" if suffix in (*HDF5_SUFFIXES, ".npy") else "")
    )


def _hdf5_kind(path: Path) -> type[SeriesFile]:
    """NetCDF-4 names its dimensions by scales; other HDF5 files have none."""
    try:
        with h5py.File(path, "r") as file:
            if "_NCProperties" in file.attrs:
                return NamedFile
            scales = [item.attrs.get("CLASS", b"") for item in file.values()]
    except (OSError, RuntimeError):
        return Hdf5File if path.suffix.lower() in HDF5_SUFFIXES else NamedFile
    return NamedFile if b"DIMENSION_SCALE" in scales else Hdf5File


def _by_number(path: Path) -> list:
    parts = re.split(r"(\d+)", str(path))
    return [(int(x), "") if x.isdigit() else (-1, x) for x in parts]


def _no_match(path: str) -> str:
    """The message for a pattern without matches, with the contents of its folder."""
    pattern = Path(path).expanduser()
    folder = pattern.parent
    while MAGIC.search(str(folder)):
        folder = folder.parent
    if not folder.is_dir():
        return f"path={path} matches no files: there is no folder {folder}"
    names = sorted(entry.name for entry in folder.iterdir())
    if not names:
        return f"path={path} matches no files: {folder} is empty"
    stem = MAGIC.sub("", pattern.stem)
    hint = nearest(stem + pattern.suffix, names) if folder == pattern.parent else ""
    hint = hint if len(stem) > 1 else ""
    return f"path={path} matches no files{hint} ({folder} contains {_kinds(folder)})"


def _folder(path: Path) -> str:
    suffixes = [p.suffix for p in path.iterdir() if p.is_file() and p.suffix]
    common = Counter(suffixes).most_common(1)
    pattern = f"'{path}/*{common[0][0]}'" if common else f"'{path}/*.nc'"
    return (
        f"path={path} is a folder but not a Zarr store; use a pattern such "
        f"as {pattern} (it contains {_kinds(path)})"
    )


def _kinds(folder: Path) -> str:
    """ "12 .nc (a.nc, b.nc, ...), 3 folders" """
    entries = sorted(folder.iterdir())
    files = Counter(e.suffix or "other" for e in entries if not e.is_dir())
    folders = sum(e.is_dir() for e in entries)
    parts = []
    for suffix, count in files.most_common(4):
        names = [e.name for e in entries if e.is_file() and e.suffix == suffix][:2]
        shown = f" ({', '.join(names)}{', ...' if count > 2 else ''})" if names else ""
        parts.append(f"{count} {suffix}{shown}")
    if folders:
        parts.append(f"{folders} folder{'s' if folders > 1 else ''}")
    return ", ".join(parts) or "nothing"
