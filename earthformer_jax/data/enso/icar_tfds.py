"""ICAR-ENSO as a prepared TFDS folder: makes its examples and reads them back.

`datasets/icar_enso` writes the folder. An example is the whole series of one climate
model on the columns 95E..330E, so that windows of any length can be cut when it is
read:

    sst          float32 `[m, h, w]`, anomalies in K, land is 0
    nino         float32 `[m]`, Nino3.4 of the month and the next two, K
    latitude     float64 `[h]`, degrees north, ascending
    longitude    float64 `[w]`, degrees east, ascending
    first_month  int32, month of the first field, counted from January of year 0
    model        int32, number of the climate model

The splits of CMIP are those of the paper: 30 models for training, 1 for validation and
1 for testing. SODA is one series, which is split by date when it is read.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from earthformer_jax.data import tfds_source
from earthformer_jax.data.enso import icar
from earthformer_jax.data.enso.icar import Months
from earthformer_jax.data.source import Example

FILES = {"cmip": "CMIP_train.nc", "soda": "SODA_train.nc"}
MODELS = sum(models for models, _ in icar.CMIP)
SPLITS = {
    "cmip": {
        "train": [
            model
            for model in range(MODELS)
            if model not in (icar.VALIDATION_MODEL, icar.TEST_MODEL)
        ],
        "validation": [icar.VALIDATION_MODEL],
        "test": [icar.TEST_MODEL],
    },
    "soda": {"train": [0]},
}


def examples(folder: Path, kind: str) -> dict[str, Iterator[Example]]:
    """The examples of each split, from the official files.

    Args:
        folder: contains CMIP_train.nc and CMIP_label.nc, or SODA_train.nc and
            SODA_label.nc.
        kind: "cmip" or "soda".

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if a file cannot be used.
    """
    train = Path(folder) / FILES[kind]
    if not train.exists():
        raise FileNotFoundError(
            f"{train} does not exist; put {FILES[kind]} and its label file there"
        )
    data = icar.read(train, icar.find_labels(train))
    models = sum(map(len, SPLITS[kind].values()))
    if len(data.fields) != models:
        raise ValueError(
            f"{train} is read as {len(data.fields)} series; expected {models}. "
            f"CMIP_train.nc, and no other file, has {icar.CMIP_ROWS} rows"
        )
    return {
        split: (_example(data, model) for model in numbers)
        for split, numbers in SPLITS[kind].items()
    }


def _example(data: Months, model: int) -> Example:
    return {
        "sst": data.fields[model],
        "nino": data.three_month_index[model],
        "latitude": data.latitude,
        "longitude": data.longitude,
        "first_month": np.asarray(data.first_month, np.int32),
        "model": np.asarray(model, np.int32),
    }


def read(folder: Path) -> Months:
    """Reads a prepared folder: the same series as `icar.read` gives for files.

    Args:
        folder: the folder with dataset_info.json.

    Raises:
        ValueError: if the folder contains other data.
    """
    kept = _open(folder, "train")
    by_model = len(kept) > 1
    if by_model:
        kept += _open(folder, "validation") + _open(folder, "test")
    kept.sort(key=lambda x: int(x["model"]))
    return Months(
        label=f"{folder} (prepared)",
        fields=[x["sst"] for x in kept],
        three_month_index=[x["nino"] for x in kept],
        first_month=int(kept[0]["first_month"]),
        latitude=kept[0]["latitude"],
        longitude=kept[0]["longitude"],
        by_model=by_model,
    )


def _open(folder: Path, split: str) -> list[Example]:
    """All examples of a split, after checking that they are those of ICAR-ENSO."""
    source = tfds_source.open_split(folder, split)
    missing = {"sst", "nino", "latitude", "longitude"} - set(source[0])
    if missing:
        raise ValueError(
            f"path={folder} contains examples with {', '.join(source[0])}; "
            f"expected those of ICAR-ENSO, which have {', '.join(sorted(missing))}"
        )
    return [source[i] for i in range(len(source))]
