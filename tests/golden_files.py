"""Reference vectors: a small set in `tests/golden`, the whole set where it is found.

Each file holds the constructor arguments, weights, inputs, outputs, cotangents and
gradients of one class of the official PyTorch implementation, computed in float64. The
whole set is looked for in `$EARTHFORMER_SHARED/golden` and beside the project.
"""

import json
import os
import pathlib

import jax
import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent / "golden"


def shared_folder() -> pathlib.Path | None:
    """The folder with the whole set of reference files and real data, if present."""
    beside = pathlib.Path(__file__).resolve().parents[2] / "shared"
    for folder in (os.environ.get("EARTHFORMER_SHARED"), beside):
        if folder and (pathlib.Path(folder) / "golden").is_dir():
            return pathlib.Path(folder)
    return None


def shared_file(*parts: str) -> pathlib.Path:
    """A file of the shared folder; skips the test with a reason where it is absent."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("the folder of reference files is not here (EARTHFORMER_SHARED)")
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path


def names(prefix: str) -> list[str]:
    """Names of the files found that start with `prefix`, project's own set included."""
    folders = [HERE] + ([shared_folder() / "golden"] if shared_folder() else [])
    return sorted({p.stem for f in folders for p in f.glob(f"{prefix}*.npz")})


def load(name: str) -> dict:
    """Everything in one file, keyed as stored; `config` and `meta` decoded."""
    path = HERE / f"{name}.npz"
    path = path if path.exists() else shared_file("golden", f"{name}.npz")
    with np.load(path) as z:
        data = {k: z[k] for k in z.files}
    for key in ("config", "meta"):
        if key in data:
            data[key] = json.loads(str(data[key]))
    return data


def group(data: dict, prefix: str) -> dict:
    """The entries below `prefix/`, with the prefix taken off."""
    return {
        k[len(prefix) + 1 :]: v for k, v in data.items() if k.startswith(f"{prefix}/")
    }


def gradients(translate, parameters, found):
    """Stored gradients by our names; NaN where the original has none.

    Readers of weights accept finite numbers only, so what is known goes the same way.

    Args:
        translate: from arrays by the original's names to our tree.
        parameters: of the original.
        found: gradients of some of them.
    """
    zeros = {name: np.zeros_like(value) for name, value in parameters.items()}
    values = {name: np.nan_to_num(value) for name, value in found.items()}
    known = {name: np.isfinite(v).astype(v.dtype) for name, v in found.items()}
    return jax.tree.map(
        lambda value, is_known: np.where(np.asarray(is_known) > 0, value, np.nan),
        translate(zeros | values),
        translate(zeros | known),
    )
