"""The data sets of an HDF5 file, wherever they are, and how their axes are named."""

import dataclasses
import functools
import math
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import h5py.h5o
import h5py.h5z
import numpy as np

from earthformer_jax.data.readers.cf import AXES

MATLAB_STORAGE = ("#refs#", "#subsystem#")  # contents of cells and objects
LETTERS = {"time": "t", "latitude": "h", "longitude": "w"}
DIMENSION_NAMES = ("DimensionNames", "DIMENSION_NAMES", "Dimensions")
CHANNELS = ("c", "channel", "channels", "band", "bands", "variable", "feature")


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a file contains.

    Attributes:
        arrays: data sets by their path, without the leading "/".
        unusable: why others cannot be read, by path.
        aliases: further paths of data sets, and the one in `arrays`.
    """

    arrays: dict[str, h5py.Dataset]
    unusable: dict[str, str]
    aliases: dict[str, str]

    @functools.cached_property
    def groups(self) -> dict[str, list[str]]:
        """Paths of the data sets of every group."""
        found: dict[str, list[str]] = {}
        for name in self.arrays:
            found.setdefault(posixpath.dirname(name), []).append(name)
        return found


@dataclasses.dataclass(frozen=True)
class Dimension:
    """A named axis of a data set.

    Attributes:
        name: in the file.
        letter: t, h, w or c; "" if it is none of them.
        scale: the data set with its coordinates, if there is one.
    """

    name: str
    letter: str
    scale: h5py.Dataset | None


def find_contents(file: h5py.File, path: Path) -> Contents:
    """All data sets of a file; each once, however many links lead to it."""
    contents = Contents({}, {}, {})
    seen: dict[tuple[int, int], str] = {}
    links = []

    def visit(name: str, item) -> None:
        stack = [(name, item)]  # groups may be nested deeper than functions may
        while stack:
            name, item = stack.pop()
            info = h5py.h5o.get_info(item.id)
            place = info.fileno, info.addr
            if place in seen:
                contents.aliases[name] = seen[place]
                continue
            seen[place] = name
            if isinstance(item, h5py.Dataset):
                problem = _unusable(item, path)
                if problem:
                    contents.unusable[name] = problem
                elif item.shape is not None:  # None: it holds nothing
                    contents.arrays[name] = item
            elif isinstance(item, h5py.Group):
                inner = []
                for key in item:
                    full = f"{name}/{key}".lstrip("/")
                    link = item.get(key, getlink=True)
                    if not isinstance(link, h5py.HardLink):
                        links.append((full, item, key, link))
                    elif full not in MATLAB_STORAGE:
                        inner.append((full, item[key]))
                stack += reversed(inner)

    visit("", file)
    while links:  # after everything that is reached without them
        name, group, key, link = links.pop(0)
        target = f"{link.path}"
        if isinstance(link, h5py.ExternalLink):
            target = f"{link.path} in {link.filename}"
            if not (path.parent / link.filename).is_file():
                contents.unusable[name] = (
                    f"is a link to {link.filename}, which does not exist"
                )
                continue
        try:
            item = group[key]
        except (KeyError, OSError, RuntimeError):
            contents.unusable[name] = f"is a link to {target}, which does not exist"
            continue
        visit(name, item)
    return contents


def unwritten(array: h5py.Dataset) -> str:
    """A note if some chunks were never written; "" otherwise.

    HDF5 gives its fill value for them, usually 0: nothing happened there, or the
    program that wrote the file was interrupted.
    """
    if not array.chunks or array.is_virtual:
        return ""
    shape = zip(array.shape, array.chunks, strict=True)
    total = math.prod(-(-length // chunk) for length, chunk in shape)
    absent = total - array.id.get_num_chunks()
    if not absent:
        return ""
    return (
        f"{absent} of {total} chunks of {text(array.name).lstrip('/')!r} were never "
        f"written and are read as {array.fillvalue}"
    )


def dimensions(array: h5py.Dataset) -> tuple[Dimension, ...]:
    """The axes of a data set, named by dimension scales, labels or an attribute.

    Returns:
        one for each axis; () if not all axes have names.
    """
    named = next((array.attrs[n] for n in DIMENSION_NAMES if n in array.attrs), "")
    names = [x for x in re.split(r"[,\s]+", text(named)) if x]
    found = []
    for place in range(array.ndim):
        name = names[place] if len(names) == array.ndim else ""
        scale = None
        try:
            axis = array.dims[place]
            scale = axis[0] if len(axis) else None
            name = posixpath.basename(str(scale.name)) if scale else name or axis.label
        except (KeyError, RuntimeError, ValueError, OSError):
            pass  # the scale was deleted
        if not name:
            return ()
        group = array.parent
        if scale is None and isinstance(group, h5py.Group):
            own = isinstance(group.get(name, getlink=True), h5py.HardLink)
            scale = group.get(name) if own else None
        if not isinstance(scale, h5py.Dataset) or scale.external or not scale.shape:
            scale = None
        found.append(Dimension(name, _letter(name, scale), scale))
    letters = [d.letter for d in found if d.letter]
    return tuple(found) if len(set(letters)) == len(letters) else ()


def nearby(contents: Contents, name: str) -> Iterator[tuple[str, h5py.Dataset]]:
    """Names in lower case and data sets: of the group of `name`, of those above it, and
    of all others, the nearest first.
    """
    home = posixpath.dirname(name)
    above = [home]
    while above[-1]:
        above.append(posixpath.dirname(above[-1]))

    def distance(group: str) -> int:
        ends = [home.split("/"), group.split("/")]
        shared = posixpath.commonprefix(ends)
        return len(ends[0]) + len(ends[1]) - 2 * len(shared)

    def names() -> Iterator[str]:
        for group in above:
            yield from contents.groups.get(group, ())
        others = [group for group in contents.groups if group not in above]
        for group in sorted(others, key=distance):
            yield from contents.groups[group]

    for other in names():
        yield posixpath.basename(other).lower(), contents.arrays[other]


def text(value) -> str:
    """An attribute as text; the first element of an array."""
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return "" if isinstance(value, h5py.Empty) else str(value).strip("\x00 ")


def _letter(name: str, scale: h5py.Dataset | None) -> str:
    attributes = {} if scale is None else scale.attrs
    units, standard, letter = (
        text(attributes.get(key, "")).lower()
        for key in ("units", "standard_name", "axis")
    )
    for axis, rule in AXES.items():
        known = standard == axis or letter == rule.letter.lower()
        if known or re.search(rule.units, units):
            return LETTERS[axis]
    for axis, rule in AXES.items():
        if name.lower() in rule.names:
            return LETTERS[axis]
    return "c" if name.lower() in CHANNELS else ""


def _unusable(array: h5py.Dataset, path: Path) -> str:
    """Why a data set must not be read; "" if it may."""
    if array.external:
        return (
            f"keeps its values in another file ({array.external[0][0]}, HDF5 external "
            "storage), which is not opened; copy them into the file with h5repack"
        )
    filters = array.id.get_create_plist()
    for place in range(filters.get_nfilters()):
        code, _, _, name = filters.get_filter(place)
        if not h5py.h5z.filter_avail(code):
            known = text(name) or "unnamed"
            return (
                f"is compressed by the filter {code} ({known}), which is missing here; "
                f"where it is installed, write the file again: h5repack -f GZIP=4 "
                f"{path.name} {path.stem}_gzip.h5"
            )
    if not array.is_virtual:
        empty = array.size and array.ndim > 1 and not array.id.get_storage_size()
        return "was never written: it would be read as a constant" if empty else ""
    for source in array.virtual_sources():
        name = source.file_name
        if name != "." and "%" not in name and not (path.parent / name).is_file():
            return f"is a view of {name}, which does not exist"
    return ""
