"""A folder of compiled programs that only this user can write."""

import hashlib
import logging
import os
import pathlib
import tempfile

logger = logging.getLogger(__name__)

MOST_BYTES = 2**29  # 512 MiB; the programs that were not used for longest are removed
SUFFIX = ".program"
_DIGEST = 32  # bytes of a SHA-256
_WRITABLE_BY_OTHERS = 0o022


class Store:
    """Bytes by name, in files that are read only if they are complete and our own.

    A program is code of the machine: whoever writes it can do what the user may do.
    Therefore folder and files have to belong to this user, and nobody else may write
    them. Whatever else is found there is never loaded.

    Args:
        folder: created when the first program is written.
        most_bytes: of all programs together.
    """

    def __init__(self, folder: pathlib.Path, most_bytes: int = MOST_BYTES):
        self.folder = folder
        self._most = most_bytes

    def read(self, name: str) -> bytes | None:
        """What was written by this name; None if there is nothing that can be used.

        A file that is damaged or of another user is reported in one line of the log.
        """
        path = self._path(name)
        try:
            if not path.exists():
                return None
            for each in (self.folder, path):
                if not _is_ours(each):
                    logger.warning(
                        "%s is ignored: it belongs to another user, or others may "
                        "write it; expected one that only you can write (chmod go-w)",
                        each,
                    )
                    return None
            content = path.read_bytes()
            payload = content[_DIGEST:]
            if content[:_DIGEST] != _digest(name, payload):
                logger.warning("%s is damaged; it is made again", path)
                return None
            os.utime(path)  # it was used
        except OSError as error:
            logger.warning("%s is ignored: %s", path, error)
            return None
        return payload

    def write(self, name: str, payload: bytes) -> None:
        """Writes a file as a whole, and removes old ones if there are too many.

        Where that is not possible nothing is kept, which a debug line says.
        """
        if not hasattr(os, "geteuid") or len(payload) + _DIGEST > self._most:
            return
        path = self._path(name)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_ours(self.folder):
                return
            with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
                file.write(_digest(name, payload) + payload)
            os.replace(file.name, path)
            self._remove_oldest()
        except OSError as error:
            logger.debug("%s cannot be kept: %s", path, error)

    def remove(self, name: str) -> None:
        """Removes a file, if there is one."""
        try:
            self._path(name).unlink(missing_ok=True)
        except OSError as error:
            logger.debug("%s stays: %s", name, error)

    def _path(self, name: str) -> pathlib.Path:
        return self.folder / f"{name}{SUFFIX}"

    def _remove_oldest(self) -> None:
        """Removes what was not used for longest, until the rest is small enough.

        Files that a killed process left behind are the oldest at some time.
        """
        found = [(x, x.stat()) for x in self.folder.iterdir() if x.is_file()]
        found.sort(key=lambda item: item[1].st_mtime, reverse=True)
        total = 0
        for path, information in found:
            total += information.st_size
            if total > self._most:
                path.unlink(missing_ok=True)


def _is_ours(path: pathlib.Path) -> bool:
    """Whether this user alone can write a file or a folder."""
    found = path.stat()
    return found.st_uid == os.geteuid() and not found.st_mode & _WRITABLE_BY_OTHERS


def _digest(name: str, payload: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + payload).digest()
