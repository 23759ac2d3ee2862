"""Finds the files that a path or pattern refers to, and detects their formats."""

import glob
import re
import zipfile
from collections import Counter
from pathlib import Path

import h5py

from earthformer_jax.data.readers.arrays import NpyFile
from earthformer_jax.data.readers.hdf5.file import Hdf5File
from earthformer_jax.data.readers.layout import MIN_DIMENSIONS, Wanted, nearest
from earthformer_jax.data.readers.netcdf import NamedFile
from earthformer_jax.data.readers.paths import existing

FORMATS = "NetCDF, Zarr, HDF5 or .npy"
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")
ZARR_FILES = ("zarr.json", ".zgroup", ".zmetadata")
MAGIC = re.compile(r"[*?\[]")  # characters that make a path a pattern

ARCHIVE = b"PK\x03\x04"
_IMAGE = "images are not fields; save their values with np.save as (time, row, column)"
_TIFF = (
    "it is (Geo)TIFF; convert it, for example with 'gdal_translate -of netCDF {name} "
    "{stem}.nc'"
)
# First bytes of other formats, and what to do.
_OTHERS = {
    b"GRIB": "it is GRIB; convert it, for example with 'cdo -f nc copy {name} "
    "{stem}.nc'",
    b"BUFR": "it is BUFR, which holds observations; decode and grid them to NetCDF, "
    "for example with ecCodes",
    ARCHIVE: "",
    b"PK\x05\x06": "it is an empty archive",
    b"\x1f\x8b": "it is compressed; unpack it with gunzip",
    b"BZh": "it is compressed; unpack it with bunzip2",
    b"\xfd7zXZ": "it is compressed; unpack it with unxz",
    b"\x28\xb5\x2f\xfd": "it is compressed; unpack it with unzstd",
    b"\x0e\x03\x13\x01": "it is HDF4; convert it, for example with 'h4toh5convert "
    "{name} {stem}.h5' or 'ncl_convert2nc {name}'",
    b"MATLAB 5": "it is a MATLAB file of version 5; save it with -v7.3, or as NetCDF "
    "(nccreate, ncwrite)",
    b"II*\x00": _TIFF,
    b"MM\x00*": _TIFF,
    b"II+\x00": _TIFF,
    b"MM\x00+": _TIFF,
    b"\x89PNG": f"it is PNG; {_IMAGE}",
    b"\xff\xd8\xff": f"it is JPEG; {_IMAGE}",
    b"GIF8": f"it is GIF; {_IMAGE}",
    b"P5": f"it is PGM; {_IMAGE}",
    b"\x80": "it is a Python pickle, which is not opened because it can run code; save "
    "plain arrays with np.save",
}
# Formats without a signature.
_BY_NAME = {
    ".mat": "it is a MATLAB file of version 4 or damaged; save it with -v7.3, or as "
    "NetCDF (nccreate, ncwrite)",
    ".csv": "it is a table of text; save its numbers as one array (time, row, column) "
    "with np.save, or as NetCDF with xarray",
    ".txt": "it is text; save its numbers as one array (time, row, column) with "
    "np.save, or as NetCDF with xarray",
    ".tar": "it is an archive; unpack it",
}

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
    kind = kind_of(path)
    in_group = any("/" in name.strip("/") for name in wanted.variables)
    if kind is NamedFile and in_group and path.is_file() and h5py.is_hdf5(path):
        kind = Hdf5File
    return kind(path, wanted)


def kind_of(path: Path) -> type[SeriesFile]:
    """The reader for a file, chosen by its first bytes.

    Raises:
        ValueError: if there is none.
    """
    if existing(str(path), "path").is_dir():
        if is_zarr(path):
            return NamedFile
        raise ValueError(_folder(path))
    with path.open("rb") as file:
        start = file.read(512)
    suffix = path.suffix.lower()
    if start[:3] == b"CDF":
        return NamedFile
    if start[:6] == b"\x93NUMPY":
        return NpyFile
    if start[:4] == b"\x89HDF" or h5py.is_hdf5(path):  # other text may come before
        return _hdf5_kind(path)
    for signature, words in _OTHERS.items():
        if start.startswith(signature):
            words = words.format(name=path.name, stem=path.stem)
            if signature == ARCHIVE:
                words = _archive(path)
            raise ValueError(f"path={path} cannot be read: {words}")
    if suffix in _BY_NAME:
        raise ValueError(f"path={path} cannot be read: {_BY_NAME[suffix]}")
    raise ValueError(
        f"path={path} is not {FORMATS} "
        f"({path.stat().st_size} bytes starting with {start[:8]!r})"
        + ("; it is truncated or damaged" if suffix in (*HDF5_SUFFIXES, ".npy") else "")
    )


def _hdf5_kind(path: Path) -> type[SeriesFile]:
    """NetCDF-4 names its dimensions by scales; other HDF5 files have none.

    Of a NetCDF-4 file whose fields are all in groups, the data sets are read.
    """
    try:
        with h5py.File(path, "r") as file:
            own = [file[key] for key in _hard_links(file)]
            outer = [item for item in own if isinstance(item, h5py.Dataset)]
            scales = [item.attrs.get("CLASS", b"") for item in outer]
            if "_NCProperties" not in file.attrs and b"DIMENSION_SCALE" not in scales:
                return Hdf5File
            flat = all(len(item.shape or ()) < MIN_DIMENSIONS for item in outer)
            if flat and len(outer) < len(own):
                return Hdf5File
            return NamedFile
    except (OSError, RuntimeError):
        return Hdf5File if path.suffix.lower() in HDF5_SUFFIXES else NamedFile


def _hard_links(file: h5py.File) -> list[str]:
    """Keys that cannot lead nowhere."""
    keys = [str(key) for key in file]
    return [k for k in keys if isinstance(file.get(k, getlink=True), h5py.HardLink)]


def _archive(path: Path) -> str:
    """What to do with a zip archive: of NumPy, or another."""
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except (zipfile.BadZipFile, OSError):
        return "it is a damaged archive; download or write it again"
    arrays = [name.removesuffix(".npy") for name in names if name.endswith(".npy")]
    if not arrays:
        return "it is an archive; unpack it, or save one array with np.save"
    shown = ", ".join(arrays[:8]) + (", ..." if len(arrays) > 8 else "")
    return (
        f"it is an archive of arrays ({shown}); save one of them: "
        f"np.save('{path.stem}.npy', np.load('{path.name}')['{arrays[0]}'])"
    )


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
