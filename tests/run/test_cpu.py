"""One device per core, and the restart with large pages."""

import os
import subprocess
import sys

import pytest

from earthformer_jax.run import cpu


@pytest.mark.parametrize(
    ("batches", "cores", "count"),
    [((16, 16), 2, 2), ((16, 12), 8, 4), ((5, 10), 4, 1), ((7,), 8, 7), ((3,), 1, 1)],
)
def test_devices_share_every_batch(batches, cores, count):
    assert cpu.device_count(batches, cores) == count


@pytest.mark.parametrize(
    ("batches", "cores", "space", "model", "count"),
    [
        ((6, 6), 8, 2, 1, 6),
        ((6, 6), 8, 1, 2, 6),
        ((4,), 2, 4, 2, 8),
        ((3,), 4, 1, 2, 2),
    ],
)
def test_parts_of_fields_and_parameters_have_devices(
    batches, cores, space, model, count
):
    assert cpu.device_count(batches, cores, space, model) == count


SCRIPT = """
import os, sys
from earthformer_jax.run import cpu
cpu.restart_with_huge_pages()
print(os.environ.get("GLIBC_TUNABLES", ""), sys.argv[1:])
"""


def restarted(**environment):
    keep = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", SCRIPT, "--a=b c", "d"]
    run = subprocess.run(
        command, env=keep | environment, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc, on Linux")
class TestRestart:
    def test_sets_the_tunable_and_keeps_the_arguments(self):
        out = restarted()
        if not out.startswith("glibc"):
            pytest.skip("the C library is not glibc 2.35 or later")
        assert out == "glibc.malloc.hugetlb=1 ['--a=b c', 'd']"

    def test_leaves_the_choice_of_the_user(self):
        out = restarted(GLIBC_TUNABLES="glibc.malloc.hugetlb=0")
        assert out == "glibc.malloc.hugetlb=0 ['--a=b c', 'd']"
