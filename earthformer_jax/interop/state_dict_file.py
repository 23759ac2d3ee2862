"""Reading a state dict from a file: `.pt`, `.npz` or `.safetensors`."""

import pathlib
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np

from earthformer_jax.checks import shown

# What reading a damaged file, or one of another kind, raises.
_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


@runtime_checkable
class Tensor(Protocol):
    """What is used of a PyTorch tensor; naming it needs no PyTorch."""

    def detach(self) -> Any:
        """The same numbers without their history."""


def as_weight(name: str, value: Any) -> np.ndarray:
    """A NumPy array of numbers, from an array or a PyTorch tensor.

    Args:
        name: of the entry.
        value: an array of floating-point numbers.

    Raises:
        ValueError: naming the entry, if it is something else or not finite.
    """
    if isinstance(value, Tensor):
        tensor = value.detach().cpu()
        is_half = "bfloat16" in str(getattr(tensor, "dtype", ""))  # not in NumPy
        value = (tensor.float() if is_half else tensor).numpy()
    if isinstance(value, str | bytes | Mapping) or value is None:
        raise ValueError(f"{name} is {shown(value)}: expected an array of numbers")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is not an array of numbers: {error}") from None
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(
            f"{name} is of type {array.dtype}: expected floating-point numbers"
        )
    if wrong := int(np.sum(~np.isfinite(array.astype(np.float32)))):
        raise ValueError(
            f"{name}: {wrong} of {array.size} numbers are NaN or infinite; expected "
            "finite weights"
        )
    return array


def by_name(state_dict: Any) -> dict[str, Any]:
    """The entries of a state dict.

    Raises:
        ValueError: if it is not a mapping from names.
    """
    if not isinstance(state_dict, Mapping):
        raise ValueError(
            f"state_dict={shown(state_dict)}: expected a mapping from names to arrays, "
            "as read_state_dict returns"
        )
    for name in state_dict:
        if not isinstance(name, str):
            raise ValueError(f"state_dict: the name {name!r} is not text")
    return dict(state_dict)


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
    kind = path.suffix.lower()
    if kind not in readers:
        raise ValueError(
            f"weights are read from {', '.join(readers)}; got {path.name!r}"
        )
    return readers[kind](path)


def _read_npz(path):
    try:
        with np.load(path) as arrays:
            return {k: arrays[k] for k in arrays.files}
    except (*_DAMAGE, AttributeError, NotImplementedError) as error:
        raise ValueError(f"{path} is not a readable .npz file: {error}") from error


def _read_safetensors(path):
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, *_DAMAGE) as error:
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
    except _DAMAGE as error:
        reason = (str(error).splitlines() or ["it ends early"])[0]
        raise ValueError(
            f"{path} is not a readable PyTorch file of tensors alone: {reason}"
        ) from error
    return _unwrapped(content)


def _unwrapped(content: Any) -> dict[str, Any]:
    """The entries of a state dict, or of the one that a checkpoint holds."""
    entries = by_name(content)
    return by_name(entries.get("state_dict", entries))
