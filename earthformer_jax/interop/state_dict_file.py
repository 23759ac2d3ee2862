"""Reading a state dict from a file: `.pt`, `.npz` or `.safetensors`."""

import pathlib
import pickle
import zipfile
from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Tensor(Protocol):
    """What is used of a PyTorch tensor; naming it needs no PyTorch."""

    def detach(self) -> Any:
        """The same numbers without their history."""


def as_numpy(value: Any) -> np.ndarray:
    """A NumPy array of an array or a PyTorch tensor."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    return np.asarray(value)


def read_state_dict(path: str | pathlib.Path) -> dict[str, Any]:
    """Arrays (tensors from `.pt` files) by name.

    `.pt`, `.pth` and `.ckpt` need PyTorch (`pip install earthformer-jax[torch]`); only
    tensors are unpickled. A checkpoint that keeps its weights under `state_dict` is
    unwrapped.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if PyTorch is needed but not installed.
        ValueError: if the file is of an unknown kind or cannot be read.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weight file at {path}")
    readers = {
        ".npz": _read_npz,
        ".safetensors": _read_safetensors,
        ".pt": _read_torch,
        ".pth": _read_torch,
        ".ckpt": _read_torch,
    }
    if path.suffix not in readers:
        raise ValueError(
            f"weights are read from {', '.join(readers)}; got {path.name!r}"
        )
    return readers[path.suffix](path)


def _read_npz(path):
    try:
        with np.load(path) as arrays:
            return {k: arrays[k] for k in arrays.files}
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise ValueError(f"{path} is not a readable .npz file: {error}") from error


def _read_safetensors(path):
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a readable safetensors file: {error}"
        ) from error


def _read_torch(path):
    try:
        import torch  # pyright: ignore[reportMissingImports] (an optional extra)
    except ImportError as error:
        raise ImportError(
            f"reading {path.name} needs PyTorch: pip install earthformer-jax[torch], "
            "or save the weights as .npz or .safetensors"
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is not a readable PyTorch weight file: {error}"
        ) from error
    return dict(content.get("state_dict", content))
