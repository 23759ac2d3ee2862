"""Forecasts whenever new input has arrived."""

import glob
import logging
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import NoReturn

from earthformer_jax.run.forecasting import making
from earthformer_jax.run.forecasting.making import Request, Trained
from earthformer_jax.settings import ConfigError

logger = logging.getLogger(__name__)

Signature = Mapping[str, tuple[int, int]]


def watch(
    trained: Trained,
    wanted: Request,
    output: str | None,
    folder: pathlib.Path,
    *,
    interval: float,
    overwrite: bool = False,
    written: making.Written,
    shown: making.Progress,
    sleep: Callable[[float], object] = time.sleep,
) -> NoReturn:
    """Forecasts when a file has appeared or changed, until a signal ends the program.

    Files are used once they have kept size and time of change for one interval. One
    file is written for each latest frame; those that exist are not made again, unless
    `overwrite` is set. What cannot be read yet is named once, and tried again.

    Args:
        trained: the model.
        wanted: which forecasts; its source is a path or pattern.
        output: folder for the forecasts; None: `folder`.
        folder: for files that are named after the input and its last frame.
        interval: seconds from one look to the next.
        overwrite: replace existing files when their input has changed.
        written: called with every file when it is complete.
        shown: shows the progress of the chunks that pass through it.
        sleep: waits for some seconds.

    Raises:
        ConfigError: if the request cannot be watched.
        OSError: if a forecast cannot be written.
    """
    making.check_members(trained, wanted)
    pattern = wanted.source or trained.config.data.get("path")
    if not isinstance(pattern, str | os.PathLike) or not os.fspath(pattern):
        raise ConfigError("--watch needs --input, the files to look at")
    if output is not None and not os.path.isdir(output):
        raise ConfigError(
            f"--watch writes one file for each latest frame; --output={output} must "
            "be an existing folder"
        )
    pattern = os.path.expanduser(os.fspath(pattern))
    logger.info("looking at %s every %g seconds; Ctrl-C ends it", pattern, interval)
    before: Signature = {}
    used: Signature = {}
    named = ""  # the problem that was logged last
    while True:
        now = look(pattern)
        if now and now == before and now != used:
            try:
                making.write(
                    trained,
                    wanted,
                    output,
                    folder,
                    existing="replace" if overwrite else "keep",
                    shown=shown,
                    written=written,
                )
            except (ConfigError, OSError) as error:
                if str(error) != named:
                    logger.warning("no forecast yet: %s", error)
                named = str(error)
            else:
                used, named = now, ""
        before = now
        sleep(interval)


def look(pattern: str) -> Signature:
    """Size and time of change of every file that a pattern matches.

    Of a folder (Zarr), these are all files in it.
    """
    found = {}
    for name in glob.glob(pattern):
        inside = [
            os.path.join(folder, file)
            for folder, _, files in os.walk(name)
            for file in files
        ]
        for path in inside if os.path.isdir(name) else [name]:
            try:
                status = os.stat(path)
            except OSError:  # it has just been moved away
                continue
            found[path] = (status.st_size, status.st_mtime_ns)
    return found
