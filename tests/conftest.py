"""Four virtual CPU devices, parsed absl flags and a compilation cache for all tests."""

import os
import sys
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    os.path.join(tempfile.gettempdir(), "earthformer_jax_test_cache"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import pytest  # noqa: E402
from absl import flags  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def _parse_absl_flags():
    """Grain's worker processes read absl flags, which pytest never parses."""
    flags.FLAGS(sys.argv[:1])
