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


def device_count(batch_sizes: Sequence[int], cores: int) -> int:
    """Number of devices to share batches among: at most one per core.

    Args:
        batch_sizes: examples per batch; each must be a multiple of the result.
        cores: number of cores that may be used.
    """
    common = math.gcd(*batch_sizes)
    return max(n for n in range(1, cores + 1) if common % n == 0)


def use_cores(batch_sizes: Sequence[int]) -> None:
    """Uses one CPU device per core, as far as the batches can be shared among them.

    Has no effect once JAX has looked for devices, or if the number is set by the
    environment variable JAX_NUM_CPU_DEVICES.

    Args:
        batch_sizes: examples per batch of everything that will run.
    """
    import jax

    chosen = jax.config.jax_num_cpu_devices  # pyright: ignore (set by jax at run time)
    if chosen < 1:  # not by the user
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else None
        count = device_count(batch_sizes, cores or os.cpu_count() or 1)
        with contextlib.suppress(RuntimeError):  # the devices already exist
            jax.config.update("jax_num_cpu_devices", count)
