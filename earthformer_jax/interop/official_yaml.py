"""Config files of the reference implementation as configs of this package.

The yaml files of the released checkpoints name the model's options and say which data
it is for. Only these two parts are used: how the reference trains is not.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import yaml

from earthformer_jax.interop.official_options import DEFAULTS, model_options
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.patterns import CrossSpec

SUFFIXES = (".yaml", ".yml")
ENSO_PLANE = (24, 48)
SEVIR_SIDE = 384  # pixels of 1 km


def read(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Fields of the sections `data` and `model` that a yaml file describes.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not yaml, or not the config of such a model.
    """
    try:
        content = yaml.safe_load(pathlib.Path(path).read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as yaml: {reason}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} has no fields; expected a section `model`")
    try:
        return fields(content)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: {error}") from error


def fields(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Fields of the sections `data` and `model` of our config.

    Args:
        content: of a yaml file with the sections `model` and perhaps `dataset`; or
            the arguments of the reference's `CuboidTransformerModel`.

    Raises:
        ValueError: if options are unknown, or it is not known which data are meant.
    """
    described = content.get("model", content)
    if not isinstance(described, Mapping):
        raise ValueError("expected a section `model` with the options of the model")
    # What the training script reads of this section, and the model does not.
    described = {
        name: value
        for name, value in described.items()
        if name in DEFAULTS or not isinstance(value, Mapping)
    }
    model = model_options(described)
    shapes = model.pop("input_shape"), model.pop("target_shape")
    for name, value in model.items():
        if _has_cuts(value):
            raise ValueError(
                f"{name} consists of cuboids, which a config cannot hold; expected "
                "names of patterns (official.earthformer_from_config takes cuboids)"
            )
    model["stem_stages"] = tuple(tuple(stage) for stage in model["stem_stages"])
    data_set = content.get("dataset")
    data = _data(data_set if isinstance(data_set, Mapping) else {}, *shapes)
    return {
        "data": data,
        "model": {"name": "earthformer", "match_reference": True} | model,
    }


def _data(
    described: Mapping[str, Any], inputs: tuple[int, ...], targets: tuple[int, ...]
) -> dict[str, Any]:
    """Settings of the data set that fields of some shapes come from."""
    lengths = {"in_len": inputs[0], "out_len": targets[0]}
    name, plane = str(described.get("dataset_name", "")).lower(), inputs[1:3]
    if plane == ENSO_PLANE:
        return {"name": "enso", "normalization": "official", **lengths}
    if "nbody" in name:
        return {"name": "nbody_mnist", **lengths}
    rows, columns = plane
    is_square = rows == columns and SEVIR_SIDE % rows == 0
    if is_square and ("sevir" in name or rows in (SEVIR_SIDE, SEVIR_SIDE // 3)):
        is_low = name == "sevirlr" or (not name and rows == SEVIR_SIDE // 3)
        steps = {"time_step": 2 if is_low else 1, "space_step": SEVIR_SIDE // rows}
        return {"name": "sevir", "normalization": "01", **steps, **lengths}
    raise ValueError(
        f"it is not known which data have fields of {rows} x {columns} cells; use a "
        "config of this package with the same options, or set dataset.dataset_name to "
        "sevir, sevirlr or nbody"
    )


def _has_cuts(value: Any) -> bool:
    if isinstance(value, CuboidSpec | CrossSpec):
        return True
    return isinstance(value, tuple) and any(_has_cuts(x) for x in value)
