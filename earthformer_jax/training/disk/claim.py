"""One writer per workdir, which can be written: known before any work is done."""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import tempfile
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from earthformer_jax.settings import ConfigError

LOCK_FILE = ".lock"
_HOLDER_FILE = ".lock-holder"  # where the file system has no locks


@contextlib.contextmanager
def claim(workdir: pathlib.Path) -> Iterator[None]:
    """Creates a workdir and keeps other processes from writing to it.

    The lock belongs to the process and ends with it, however it ends. In a
    multi-process job the first process claims the workdir for all of them. A workdir
    that nothing was written to is removed in the end, if it is new.

    Args:
        workdir: as given by the user.

    Raises:
        ConfigError: if the workdir cannot be written, if another process writes to it,
            or if checkpoints cannot be written to a folder of that name.
    """
    _check_name(workdir)
    refusal, release = None, contextlib.ExitStack()
    if jax.process_index() == 0:
        try:
            _create(workdir, release)
            _lock(workdir, release)
        except OSError as error:
            refusal = _not_writable(workdir, error)
        except ConfigError as error:
            refusal = error
    if _any_process(refusal is not None):
        release.close()
        raise refusal or ConfigError(f"the first process cannot claim {workdir}")
    with release:
        yield


def check_writable(workdir: pathlib.Path) -> None:
    """Refuses a folder to which no file can be written.

    Raises:
        ConfigError: with the reason.
    """
    try:
        with tempfile.TemporaryFile(dir=workdir) as file:
            file.write(b"0")
    except OSError as error:
        raise _not_writable(workdir, error) from error


def _not_writable(workdir: pathlib.Path, error: OSError) -> ConfigError:
    return ConfigError(f"the workdir {workdir} cannot be written: {error.strerror}")


def _check_name(workdir: pathlib.Path) -> None:
    """Refuses names with which Orbax would leave checkpoints that cannot be read."""
    path = str(workdir.absolute())
    if set(path) & set("*?[\\"):  # the first three: a pattern for Orbax
        raise ConfigError(
            f"the workdir {path} cannot hold checkpoints: its path contains one of "
            "* ? [ \\; use another name"
        )
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"the workdir {path!r} cannot hold checkpoints: its path is not UTF-8; "
            "use another name"
        ) from None


def _create(workdir: pathlib.Path, release: contextlib.ExitStack) -> None:
    """Creates the folders that are missing; removes those that stay empty."""
    missing = [p for p in (workdir, *workdir.parents) if not p.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        release.callback(_remove_if_empty, folder)
    if not workdir.is_dir():
        raise NotADirectoryError(None, "it is not a folder")


def _remove_if_empty(folder: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _lock(workdir: pathlib.Path, release: contextlib.ExitStack) -> None:
    path = workdir / LOCK_FILE
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(path)
            os.close(descriptor)
            raise _in_use(workdir, holder) from None
        except OSError:
            os.close(descriptor)
            path.unlink()
            return _lock_by_name(workdir, release)
        if _is_same_file(path, descriptor):
            break
        os.close(descriptor)  # its holder has just removed it
    release.callback(os.close, descriptor)
    release.callback(path.unlink, missing_ok=True)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, _describe_holder())


def _lock_by_name(workdir: pathlib.Path, release: contextlib.ExitStack) -> None:
    """Locks where the file system cannot: the first to create a file has the lock."""
    path = workdir / _HOLDER_FILE
    with contextlib.suppress(FileNotFoundError):
        holder = _holder(path)
        if holder.get("host") == socket.gethostname() and not _runs(holder["pid"]):
            path.unlink()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        raise _in_use(workdir, _holder(path), remove=path) from None
    release.callback(path.unlink, missing_ok=True)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_describe_holder())


def _is_same_file(path: pathlib.Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _describe_holder() -> bytes:
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode()


def _holder(path: pathlib.Path) -> dict:
    """{"host": ..., "pid": ...}, empty while it is being written."""
    try:
        holder = json.loads(path.read_bytes())
        return {"host": str(holder["host"]), "pid": int(holder["pid"])}
    except (ValueError, TypeError, KeyError):
        return {}


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return True


def _in_use(
    workdir: pathlib.Path, holder: dict, remove: pathlib.Path | None = None
) -> ConfigError:
    who = (
        f"process {holder['pid']} on {holder['host']}" if holder else "another process"
    )
    hint = f" (if it has ended, remove {remove})" if remove else ""
    return ConfigError(
        f"the workdir {workdir} is in use by {who}{hint}; wait until it ends, or use "
        "another workdir"
    )


def _any_process(here: bool) -> bool:
    """Whether something is true in the first process; all processes ask together."""
    if jax.process_count() == 1:
        return here
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(here)))
