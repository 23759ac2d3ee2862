"""What a compiled program depends on, as a text: same text, same program.

Weights and fields are arguments of a program, and so only their shapes count. What
cannot be told with certainty raises `UnknownError`; such a program is not kept.
"""

import dataclasses
import enum
import functools
import hashlib
import os
import pathlib
import platform
import sys
import types
from collections.abc import Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
import jaxlib
import numpy as np

from earthformer_jax.ops.tuned.native import library

# Classes and functions of these packages; their versions, and our files, are counted.
_KNOWN = ("builtins", "earthformer_jax", "flax", "jax", "jaxlib", "numpy", "ml_dtypes")
_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")
_CPU_FIELDS = ("model name", "flags", "Features", "CPU implementer", "CPU part")


class UnknownError(Exception):
    """Something that a program may depend on, and that has no exact description."""


def of_model(model: Any) -> str:
    """A model with all its options, those of the models inside it, and its constants.

    Raises:
        UnknownError: if any of them, or the code of the model, has no description.
    """
    return _described(model)


def of_arrays(tree: Any) -> str:
    """The structure of a tree, and the shapes and types of its arrays and numbers."""
    leaves, structure = jax.tree.flatten(tree)
    texts = [
        f"{np.shape(x)} {getattr(x, 'dtype', type(x).__name__)} "
        f"{getattr(x, 'weak_type', False)}"
        for x in leaves
    ]
    return f"{structure}: {'; '.join(texts)}"


def of_surroundings() -> str:
    """Our code, the versions of libraries, the settings of JAX, and the machine."""
    # Attributes know contexts, such as `jax.default_matmul_precision`.
    options = {
        name: getattr(jax.config, name, value)
        for name, value in jax.config.values.items()
        if "cache" not in name
    }
    return "\n".join(
        [
            _code(),
            _machine(),
            f"native {library.expected_version() if library.wanted() else None}",
            f"python {sys.version}",
            *(f"{x.__name__} {x.__version__}" for x in (jax, jaxlib, flax, np)),
            *(f"{name}={os.environ.get(name)}" for name in _VARIABLES),
            *(f"{name}={value}" for name, value in sorted(options.items())),
        ]
    )


@functools.cache
def _code() -> str:
    """SHA-256 of all files of this package."""
    root = pathlib.Path(__file__).parents[2]
    found = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        text = path.read_bytes()
        found.update(f"{path.relative_to(root)} {len(text)}\n".encode() + text)
    return f"code {found.hexdigest()}"


@functools.cache
def _machine() -> str:
    """The devices of this process, and the instructions that its processor has."""
    device = jax.local_devices()[0]
    client = device.client
    cores = os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return (
        f"{platform.platform()}, {cores} cores, {_processor()}, "
        f"{jax.local_device_count()} of {jax.device_count()} devices {device.id} "
        f"{device.device_kind} {client.platform} {client.platform_version}"
    )


def _processor() -> str:
    """Name and features of the first processor, as Linux tells them."""
    information = pathlib.Path("/proc/cpuinfo")
    if not information.exists():
        return platform.processor()
    first = information.read_text().split("\n\n")[0].splitlines()
    return "; ".join(x for x in first if x.split("\t")[0].strip() in _CPU_FIELDS)


def _described(value: Any) -> str:
    """An exact text for a value.

    Raises:
        UnknownError: for objects that could differ and have the same text.
    """
    kind = type(value)
    if value is None or kind in (bool, int, float, complex, str, bytes):
        return f"{kind.__name__} {value!r}"
    if isinstance(value, enum.Enum | np.dtype | np.generic):
        return f"{_path(kind)} {value!r}"
    if isinstance(value, np.ndarray | jax.Array):
        array = np.asarray(value)
        if array.dtype == object:
            raise UnknownError("an array of objects")
        digest = hashlib.sha256(array.tobytes()).hexdigest()
        return f"array {array.shape} {array.dtype} {digest}"
    if kind in (list, tuple, set, frozenset):
        items = [_described(x) for x in value]
        items = items if kind in (list, tuple) else sorted(items)
        return f"{kind.__name__} ({', '.join(items)})"
    if isinstance(value, Mapping):
        pairs = sorted(f"{_described(k)}: {_described(v)}" for k, v in value.items())
        return f"{_path(kind)} {{{', '.join(pairs)}}}"
    if isinstance(value, type):
        return f"class {_path(value)}"
    if dataclasses.is_dataclass(value):
        return f"{_path(kind)} ({', '.join(_fields(value))})"
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | np.ufunc):
        return f"function {_function(value)}"
    raise UnknownError(f"{kind.__module__}.{kind.__qualname__}")


def _fields(value: Any) -> list[str]:
    """Names and values of the fields of a dataclass.

    Raises:
        UnknownError: as `_described`.
    """
    names = [field.name for field in dataclasses.fields(value)]
    if isinstance(value, nn.Module):
        if value.scope is not None:
            raise UnknownError("a module that is bound to variables")
        names = [name for name in names if name != "parent"]
    return [f"{name}={_described(getattr(value, name))}" for name in names]


def _path(kind: type) -> str:
    """Where a class is defined.

    Raises:
        UnknownError: if its code is not counted, or it is made while programs run.
    """
    if kind.__module__.split(".")[0] not in _KNOWN or "<" in kind.__qualname__:
        raise UnknownError(f"{kind.__module__}.{kind.__qualname__}")
    return f"{kind.__module__}.{kind.__qualname__}"


def _function(function: Any) -> str:
    """Where a function is defined.

    Raises:
        UnknownError: if its code is not counted, or it depends on more than arguments.
    """
    module = getattr(function, "__module__", None) or "numpy"
    name = getattr(function, "__qualname__", None) or function.__name__
    closed_over = getattr(function, "__closure__", None)
    if module.split(".")[0] not in _KNOWN or "<" in name or closed_over:
        raise UnknownError(f"function {module}.{name}")
    return f"{module}.{name}"
