"""What makes programs fast on CPUs and must be said before they start.

XLA's CPU compiler runs many of its operations, convolutions above all, on one core.
With one device per core every core has a share of the batch, and works on its own. And
most of a large training step's memory is new to it, page by page of 4 KiB: with pages
of 2 MiB the system is asked for them 500 times less often.

Import nothing here that takes long, or that starts JAX.
"""

import contextlib
import math
import os
import platform
import sys
from collections.abc import Sequence

_TUNABLE = "glibc.malloc.hugetlb"


def restart_with_huge_pages() -> None:
    """Starts this process once more, with large memory pages, where that is possible.

    The C library reads the setting (GLIBC_TUNABLES) when a process begins. To be called
    before anything else; a value of the user's own is left alone. Returns when there is
    nothing to do.
    """
    name, version = platform.libc_ver()
    # In glibc since 2.35; argv as it was typed since Python 3.10.
    new_enough = [int(x) for x in version.split(".") if x.isdigit()] >= [2, 35]
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if name != "glibc" or not new_enough or _TUNABLE in tunables:
        return
    wanted = ":".join(filter(None, [tunables, f"{_TUNABLE}=1"]))
    environment = os.environ | {"GLIBC_TUNABLES": wanted}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def device_count(batch_sizes: Sequence[int], cores: int) -> int:
    """Devices for batches that are shared by them: at most one per core.

    Args:
        batch_sizes: examples per batch; every one must be a multiple of the devices.
        cores: of this machine that may be used.
    """
    common = math.gcd(*batch_sizes)
    return max(n for n in range(1, cores + 1) if common % n == 0)


def use_cores(batch_sizes: Sequence[int]) -> None:
    """One CPU device per core, as far as the batches can be shared.

    Has no effect once JAX has looked for devices, or where the number was given with
    the environment variable JAX_NUM_CPU_DEVICES.

    Args:
        batch_sizes: examples per batch of everything that will run.
    """
    import jax

    chosen = jax.config.jax_num_cpu_devices  # pyright: ignore (set by jax at run time)
    if chosen < 1:  # not by the user
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else None
        count = device_count(batch_sizes, cores or os.cpu_count() or 1)
        with contextlib.suppress(RuntimeError):  # there are devices already
            jax.config.update("jax_num_cpu_devices", count)
