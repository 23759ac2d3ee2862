"""Data prepared by TensorFlow Datasets, read example by example without TensorFlow.

Any data that TFDS has written as ArrayRecord can be opened: a folder with a
`dataset_info.json` (`open_split`), or one of the data sets of TFDS by its name
(`open_named`). Nothing is downloaded or prepared here; do this once:

    pip install "earthformer-jax[tfds]"
    tfds build mnist --file_format=array_record

Reference:
    https://www.tensorflow.org/datasets/data_source
"""

import hashlib
import importlib
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from earthformer_jax.data import leaks
from earthformer_jax.data.source import Example

INFO_FILE = "dataset_info.json"
FEATURES_FILE = "features.json"
RANDOM_ACCESS = "array_record"
INSTALL = 'pip install "earthformer-jax[tfds]"'


def is_prepared(path: str | os.PathLike) -> bool:
    """Whether a folder contains data prepared by TFDS."""
    return (Path(path).expanduser() / INFO_FILE).is_file()


def open_split(path: str | os.PathLike, split: str) -> "TfdsSource":
    """The examples of one split of a prepared folder.

    Args:
        path: the folder with dataset_info.json, "DATA/nbody_mnist/1.0.0".
        split: "train", "validation" or "test".

    Raises:
        FileNotFoundError: if the folder contains no prepared data, or a file is
            missing.
        ValueError: if tensorflow-datasets is not installed, the split does not exist,
            or the files are not ArrayRecord.
    """
    path = Path(path).expanduser()
    if not is_prepared(path):
        raise FileNotFoundError(
            f"{path} contains no {INFO_FILE}; expected a folder prepared by TFDS, "
            "whose name is a version, such as DATA/nbody_mnist/1.0.0"
        )
    return TfdsSource(path, split)


def open_named(name: str, split: str) -> "TfdsSource":
    """The examples of one split of a data set of TFDS, from the folder TFDS uses.

    Args:
        name: "mnist"; searched in $TFDS_DATA_DIR, or in ~/tensorflow_datasets.
        split: "train" or "test".

    Raises:
        FileNotFoundError: if it is not prepared, or a file is missing.
        ValueError: if tensorflow-datasets is not installed, the split does not exist,
            or the files are not ArrayRecord.
    """
    folder = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))
    folder = folder.expanduser() / name
    versions = [info.parent for info in folder.glob(f"*.*.*/{INFO_FILE}")]
    if not versions:
        raise FileNotFoundError(
            f"{folder} contains no data prepared by TFDS; prepare them once with `tfds "
            f"build {name} --file_format={RANDOM_ACCESS}`, or set TFDS_DATA_DIR to the "
            "folder that contains them"
        )
    return TfdsSource(max(versions, key=_version), split)


class TfdsSource(Sequence):
    """One split: `source[i]` is example i, a dict of arrays, in the stored order.

    Files are opened on first use, once in each process.
    """

    def __init__(self, folder: Path, split: str):
        self._folder, self._split = folder, split
        self._lock = threading.Lock()
        self._records: Sequence[Any] | None = None
        self._length = len(self._opened())

    def __len__(self) -> int:
        return self._length

    # Sequence promises slices, which nothing here needs.
    def __getitem__(self, index: int) -> Example:  # pyright: ignore
        if not -self._length <= index < self._length:
            raise IndexError(f"example {index} of {self._length}")
        return self._opened()[index % self._length]

    def positions(self) -> np.ndarray:
        """Positions of the examples in the builder's order, for keys 0, 1, 2, ...

        By default, TFDS stores the examples of a split in the order of the md5 hash of
        the split's name and their key. This recovers the builder's order, which for
        "mnist" and "moving_mnist" is that of the original files.

        Returns:
            `[n]` int64: example `i` of the builder is `source[positions[i]]`.
        """
        numbers = range(self._length)
        if _info(self._folder).get("disableShuffling", False):
            return np.arange(self._length)

        def stored_by(number: int) -> bytes:
            key = f"{self._split}{number}".encode()
            return hashlib.md5(key, usedforsecurity=False).digest()

        return np.argsort(np.array(sorted(numbers, key=stored_by), np.int64))

    def keys(self) -> np.ndarray:
        """int64 `[n]`, equal for examples that are stored with equal bytes."""
        array_record = importlib.import_module(
            "array_record.python.array_record_data_source"
        )
        files = _files(self._folder, _info(self._folder), self._split)
        records = array_record.ArrayRecordDataSource(files)
        return np.array([leaks.key(records[i]) for i in range(len(self))], np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_records": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def _opened(self) -> Sequence[Any]:
        with self._lock:
            if self._records is None:
                self._records = _open(self._folder, self._split)
            return self._records


def _open(folder: Path, split: str) -> Sequence[Any]:
    """Random access to the examples of a split."""
    try:
        tfds = importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise ValueError(
            f"reading {folder} requires tensorflow-datasets, which is not installed: "
            f"{INSTALL}"
        ) from error
    info = _info(folder)
    splits = [part["name"] for part in info["splits"]]
    if split not in splits:
        raise ValueError(
            f"{folder} has no split {split!r}; there are: {', '.join(splits)}"
        )
    file_format = info.get("fileFormat", "tfrecord")
    if file_format != RANDOM_ACCESS:
        raise ValueError(
            f"{folder} is prepared as {file_format}, which does not allow random "
            f"access; prepare it again with --file_format={RANDOM_ACCESS}"
        )
    videos = _video_shapes(folder)
    if videos:
        return _Videos(tfds, _files(folder, info, split), videos)
    return tfds.builder_from_directory(folder).as_data_source(split)


def _info(folder: Path) -> dict[str, Any]:
    return json.loads((folder / INFO_FILE).read_text())


def _files(folder: Path, info: dict[str, Any], split: str) -> list[str]:
    """The files of a split, in order."""
    start = f"{info['name']}-{split}.{RANDOM_ACCESS}-"
    files = sorted(str(path) for path in folder.glob(f"{start}*"))
    if not files:
        raise FileNotFoundError(f"{folder}/{start}* does not exist")
    return files


def _video_shapes(folder: Path) -> dict[str, list[int]]:
    """Shapes `[t, h, w, c]` of the video features, by name."""
    features = json.loads((folder / FEATURES_FILE).read_text())
    features = features.get("featuresDict", {}).get("features", {})
    return {
        name: [int(size) for size in feature["video"]["shape"]["dimensions"]]
        for name, feature in features.items()
        if "video" in feature
    }


class _Videos(Sequence):
    """Examples of videos, decoded frame by frame: TFDS needs TensorFlow for videos."""

    def __init__(self, tfds: Any, files: list[str], shapes: dict[str, list[int]]):
        array_record = importlib.import_module(
            "array_record.python.array_record_data_source"
        )
        self._records = array_record.ArrayRecordDataSource(files)
        self._features = tfds.features.FeaturesDict(
            {
                name: tfds.features.Sequence(
                    tfds.features.Image(shape=shape[1:]), length=shape[0]
                )
                for name, shape in shapes.items()
            }
        )

    def __len__(self) -> int:
        return len(self._records)

    # Sequence promises slices, which nothing here needs.
    def __getitem__(self, index: int) -> Example:  # pyright: ignore
        example = self._features.deserialize_example_np(self._records[index])
        return {name: np.stack(list(frames)) for name, frames in example.items()}


def _version(folder: Path) -> list[int]:
    return [int(part) for part in folder.name.split(".") if part.isdecimal()]
