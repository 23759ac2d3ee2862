"""A description of the machine, and the memory that a process holds."""

import ctypes
import gc
import os
import pathlib
import platform

MATRIX_SIZE = 2048  # side of the float32 matrices multiplied to get the rate
MATRIX_OPERATIONS = 2 * MATRIX_SIZE**3
_STATUS = pathlib.Path("/proc/self/status")


def cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def largest_divisor(batch: int, most: int) -> int:
    """The largest number up to `most` that divides a batch."""
    return next(n for n in range(min(batch, most), 0, -1) if batch % n == 0)


def describe() -> dict:
    """Processor, cores, memory in GiB, system and Python."""
    return dict(
        processor=_processor(),
        cores=cores(),
        memory_gib=_memory_gib(),
        system=platform.platform(),
        python=platform.python_version(),
    )


def held_mib() -> float | None:
    """Memory held by this process (resident set, MiB); None if unknown."""
    return _status("VmRSS")


def peak_mib() -> float | None:
    """The most memory it has held since its start, or since `forget_peak`."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Returns unused memory to the system, and resets the peak."""
    gc.collect()
    if not _STATUS.exists():
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # GNU libc; otherwise freed memory counts as held
        libc.malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> float | None:
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / 1024
    return None


def _processor() -> str:
    information = pathlib.Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return round(pages * size / 2**30, 1)
