"""The functions in C++, compiled once on each machine and kept in the user's cache.

    with without():  # functions of JAX alone
        ...

A compiler is looked for when a program for a CPU first needs a function: the one named
by CXX, c++, g++ or clang++. It compiles for the very processor (-march=native), which
takes about ten seconds. EARTHFORMER_JAX_NATIVE=0 in the environment has the same effect
as `without` for everything.
"""

import concurrent.futures
import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator

import jax

from earthformer_jax.ops.derivatives import in_forward_mode
from earthformer_jax.ops.tuned.choice import measured

logger = logging.getLogger(__name__)

SWITCH = "EARTHFORMER_JAX_NATIVE"
FUNCTIONS = (
    "attention",
    "attention_gradient",
    "convolution",
    "convolution_kernel_gradient",
    "convolution_plane_gradient",
    "feed_forward",
    "feed_forward_gradient",
    "group_norm",
    "group_norm_gradient",
    "self_attention",
    "self_attention_gradient",
)
SOURCES = (
    "attention.cc",
    "convolution.cc",
    "feed_forward.cc",
    "group_norm.cc",
    "self_attention.cc",
)
HEADERS = (
    "arrays.h",
    "dropout.h",
    "head.h",
    "layer.h",
    "planes.h",
    "threads.h",
    "vectors.h",
)
HERE = pathlib.Path(__file__).parent
_SECONDS = 120  # that compiling may take
_FLAGS = ("-O3", "-std=c++17", "-fPIC", "-pthread", "-fno-math-errno", "-w")

_without = jax.make_user_context(default_value=False)
_lock = threading.Lock()


def without() -> contextlib.AbstractContextManager[None]:
    """A context in which no function in C++ is used.

    As `ops.forward_mode` it is part of the cache key of `jax.jit`.
    """
    return _without(True)


def wanted() -> bool:
    """Whether functions in C++ are to be used here, if there are any."""
    off = _without.value or os.environ.get(SWITCH) == "0"
    return measured() and not in_forward_mode() and not off


def available() -> bool:
    """Whether functions in C++ are used here; compiles them if need be."""
    return wanted() and version() is not None


def target(function: str) -> str:
    """The name of a function for `jax.ffi.ffi_call`.

    Raises:
        ValueError: if there are no functions in C++ here.
    """
    of_library = version()
    if of_library is None:
        raise ValueError(f"{function}: there is no C++ compiler here")
    return _registered_name(function, of_library)


def version() -> str | None:
    """What tells this library from others; None if there is none.

    It is compiled and loaded if need be: afterwards, programs that use it can run.
    """
    if os.environ.get(SWITCH) == "0":
        return None
    with _lock:  # threads that trace at the same time
        return _loaded()


def expected_version() -> str | None:
    """What `version` returns if all goes well, without compiling anything."""
    command = _command()
    return None if command is None else _digest(command)


@functools.cache
def _loaded() -> str | None:
    """Compiles the library if need be, loads it and registers its functions."""
    command = _command()
    if command is None:
        logger.debug("no C++ compiler: functions of JAX alone are used")
        return None
    digest = _digest(command)
    try:
        with _folder() as folder:
            library = _load(command, folder / f"{digest}.so")
    except (OSError, subprocess.SubprocessError) as error:
        why = getattr(error, "stderr", None) or str(error)
        logger.info("functions of JAX alone are used: C++ failed: %s", _first_line(why))
        return None
    _register(library, digest)
    return digest


def _register(library: ctypes.CDLL, digest: str) -> None:
    for function in FUNCTIONS:
        jax.ffi.register_ffi_target(
            _registered_name(function, digest),
            jax.ffi.pycapsule(getattr(library, function)),
            platform="cpu",
        )


def _registered_name(function: str, digest: str) -> str:
    return f"earthformer_jax.{function}.{digest[:16]}"


def _command() -> list[str] | None:
    """The compiler and its flags, but for those of the processor."""
    named = shlex.split(os.environ.get("CXX", ""))
    candidates = [named] if named else [["c++"], ["g++"], ["clang++"]]
    found = next((c for c in candidates if shutil.which(c[0])), None)
    if found is None:
        return None
    return [*found, *_FLAGS, f"-I{jax.ffi.include_dir()}"]


def _digest(command: list[str]) -> str:
    """Of everything that the compiled code depends on."""
    parts = [(HERE / name).read_bytes() for name in SOURCES + HEADERS]
    parts += [" ".join(command).encode(), jax.__version__.encode(), _processor()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _processor() -> bytes:
    """What tells processors apart that understand different instructions."""
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_bytes().splitlines()
        wanted = (b"model name", b"flags", b"Features", b"CPU part")
        return b"\n".join(dict.fromkeys(x for x in lines if x.startswith(wanted)))
    return f"{platform.machine()} {platform.processor()} {platform.node()}".encode()


@contextlib.contextmanager
def _folder() -> Iterator[pathlib.Path]:
    """The user's cache folder; one for this process alone if it is not writable."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(home, "earthformer_jax", "native")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        with tempfile.TemporaryDirectory() as own:
            yield pathlib.Path(own)
    else:
        yield folder


def _load(command: list[str], library: pathlib.Path) -> ctypes.CDLL:
    """The library in a file, which is made if it is not there, or damaged."""
    if library.exists():
        try:
            return ctypes.CDLL(str(library))
        except OSError as error:
            logger.info("functions in C++ are compiled again: %s", error)
            library.unlink()
    _make(command, library)
    return ctypes.CDLL(str(library))


def _make(command: list[str], library: pathlib.Path) -> None:
    logger.info("compiling functions in C++, once on this machine")
    with tempfile.TemporaryDirectory(dir=library.parent) as own:
        objects = [pathlib.Path(own, f"{source}.o") for source in SOURCES]
        with concurrent.futures.ThreadPoolExecutor() as compilers:
            list(compilers.map(functools.partial(_compile, command), SOURCES, objects))
        made = pathlib.Path(own, "library.so")
        _run([*command, "-shared", *map(str, objects), "-o", str(made)])
        os.replace(made, library)  # complete, whoever else compiles it


def _compile(command: list[str], source: str, to: pathlib.Path) -> None:
    """Compiles one file, for this processor if the compiler knows how."""
    rest = ["-c", str(HERE / source), "-o", str(to)]
    try:
        _run([*command, "-march=native", *rest])
    except subprocess.CalledProcessError:
        _run([*command, "-mcpu=native", *rest])


def _run(command: list[str]) -> None:
    subprocess.run(
        command, capture_output=True, text=True, timeout=_SECONDS, check=True
    )


def _first_line(text: str) -> str:
    return (text.splitlines() or [""])[0]
