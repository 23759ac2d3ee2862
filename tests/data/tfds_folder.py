"""Folders as TFDS prepares them, written by hand: TFDS itself needs TensorFlow to."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_FEATURES = "tensorflow_datasets.core.features"


def png(image: np.ndarray) -> bytes:
    """A grey image `[h, w]` as TFDS stores it."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def image(shape):
    """Description of images `[h, w, 1]`, and how one is stored."""
    described = {"shape": _shape(shape), "dtype": "uint8", "encodingFormat": "png"}
    kind = {"pythonClassName": f"{_FEATURES}.image_feature.Image", "image": described}
    return kind, lambda x: [png(x[..., 0])]


def video(shape):
    """Description of videos `[t, h, w, 1]`, and how one is stored."""
    described = {"shape": _shape(shape), "dtype": "uint8", "encodingFormat": "png"}
    kind = {"pythonClassName": f"{_FEATURES}.video_feature.Video", "video": described}
    return kind, lambda x: [png(frame[..., 0]) for frame in x]


def tensor(shape):
    """Description of uint8 arrays, and how one is stored."""
    described = {"shape": _shape(shape), "dtype": "uint8", "encoding": "bytes"}
    kind = {
        "pythonClassName": f"{_FEATURES}.tensor_feature.Tensor",
        "tensor": described,
    }
    return kind, lambda x: [x.tobytes()]


def _shape(shape):
    return {"dimensions": [str(size) for size in shape]}


def write(
    folder: Path,
    name: str,
    feature: str,
    kind,
    splits: dict[str, np.ndarray],
    *,
    shards: int = 1,
    shuffled: bool = True,
    file_format: str = "array_record",
) -> Path:
    """Writes examples `{feature: array[i]}` with keys 0, 1, ...; skips without TFDS.

    Args:
        folder: to write to.
        name: of the data set.
        feature: the one feature.
        kind: `image`, `video` or `tensor`.
        splits: by name, `[n, ...]`.
        shards: files per split.
        shuffled: in the order of the hashes of keys, as TFDS does unless told not to.
        file_format: what the folder says.
    """
    pytest.importorskip("tensorflow_datasets")
    from array_record.python import array_record_module
    from tensorflow_datasets.proto import tf_example_pb2

    folder.mkdir(parents=True)
    infos = []
    for split, values in splits.items():
        described, stored = kind(values.shape[1:])
        order = range(len(values))
        if shuffled:
            order = sorted(order, key=lambda i, s=split: _hash(s, i))
        parts = np.array_split(np.array(order), shards)
        for shard, numbers in enumerate(parts):
            file = f"{name}-{split}.array_record-{shard:05d}-of-{shards:05d}"
            writer = array_record_module.ArrayRecordWriter(
                str(folder / file), "group_size:1"
            )
            for number in numbers:
                example = tf_example_pb2.Example()
                cell = example.features.feature[feature].bytes_list.value
                cell.extend(stored(values[number]))
                writer.write(example.SerializeToString())
            writer.close()
        infos.append(
            {
                "name": split,
                "shardLengths": [str(len(part)) for part in parts],
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        )
    info = {"name": name, "version": "1.0.0", "fileFormat": file_format}
    info |= {"splits": infos, "disableShuffling": not shuffled}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    features = {
        "pythonClassName": f"{_FEATURES}.features_dict.FeaturesDict",
        "featuresDict": {"features": {feature: described}},
    }
    (folder / "features.json").write_text(json.dumps(features))
    return folder


def _hash(split: str, number: int) -> int:
    """What TFDS sorts by: `tensorflow_datasets.core.hashing.Hasher`."""
    return int(hashlib.md5(f"{split}{number}".encode()).hexdigest(), 16)
