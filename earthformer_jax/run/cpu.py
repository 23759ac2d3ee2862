"""CPU settings that make programs fast and have to be made before they start.

XLA's CPU compiler runs many operations, above all convolutions, on a single core. With
one device per core, each core works on its own share of the batch. In addition, a large
training step touches mostly new memory, in pages of 4 KiB: with pages of 2 MiB the
system has to provide them 500 times less often.

Do not import anything here that is slow to import or that starts JAX.
"""

import contextlib
import math
import os
import platform
import sys
from collections.abc import Sequence

_TUNABLE = "glibc.malloc.hugetlb"


def restart_with_huge_pages() -> None:
    """Restarts this process with large memory pages, where that is possible.

    The C library reads the setting (GLIBC_TUNABLES) when a process starts, so call this
    before anything else. A value set by the user is left alone. Returns if there is
    nothing to do.
    """
    name, version = platform.libc_ver()
    # glibc has this since 2.35; Python has argv as it was typed since 3.10.
    new_enough = [int(x) for x in version.split(".") if x.isdigit()] >= [2, 35]
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if name != "glibc" or not new_enough or _TUNABLE in tunables:
        return
    wanted = ":".join(filter(None, [tunables, f"{_TUNABLE}=1"]))
    environment = os.environ | {"GLIBC_TUNABLES": wanted}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def device_count(
    batch_sizes: Sequence[int], cores: int, space: int = 1, model: int = 1
) -> int:
    """Number of devices to share work among: at most one per core, if that is enough.

    Args:
        batch_sizes: examples per batch; each can be shared equally by the devices.
        cores: number of cores that may be used.
        space: parts of each field; devices with parts of one field share an example.
        model: parts of the parameters. Where there are more parts than cores, there is
            one device for each.
    """
    common, parts = math.gcd(*batch_sizes), space * model
    counts = range(parts, cores + 1, parts)
    return max((n for n in counts if common % (n // space) == 0), default=parts)


def use_cores(batch_sizes: Sequence[int], space: int = 1, model: int = 1) -> None:
    """Uses one CPU device per core, as far as the batches can be shared among them.

    Has no effect once JAX has looked for devices, or if the number is set by the
    environment variable JAX_NUM_CPU_DEVICES.

    Args:
        batch_sizes: examples per batch of everything that will run.
        space: parts of each field (`config.parallel.space`).
        model: parts of the parameters (`config.parallel.model`).
    """
    import jax

    chosen = jax.config.jax_num_cpu_devices  # pyright: ignore (set by jax at run time)
    if chosen < 1:  # not by the user
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else None
        count = device_count(batch_sizes, cores or os.cpu_count() or 1, space, model)
        with contextlib.suppress(RuntimeError):  # the devices already exist
            jax.config.update("jax_num_cpu_devices", count)
