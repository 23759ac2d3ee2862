"""Four virtual CPU devices, parsed absl flags and a compilation cache for all tests."""

import gc
import os
import signal
import sys
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    os.path.join(tempfile.gettempdir(), "earthformer_jax_test_cache"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Each program runs once or twice, so optimising it costs more than it saves; 0 has the
# programs that users have.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def _parse_absl_flags():
    """Grain's worker processes read absl flags, which pytest never parses."""
    flags.FLAGS(sys.argv[:1])


@pytest.fixture(scope="session", autouse=True)
def _signals_of_a_terminal():
    """Signals that `nohup` or a shell's background ignores stop what tests start."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.getsignal(number) for number in usual}
    for number, handler in usual.items():
        if before[number] == signal.SIG_IGN:
            signal.signal(number, handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def optimised():
    """Programs of the test are compiled as users have them."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def without_native():
    """No functions in C++, which a compiled program does not show."""
    from earthformer_jax.ops.tuned.native import library

    with library.without():
        yield


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """Ends a process of xdist at once, which otherwise takes about ten seconds.

    pytest collects garbage several times at its very end, among every program that was
    traced, and xdist waits for it, although a process no longer reports what is found.
    """
    if hasattr(session.config, "workerinput"):
        gc.freeze()


def pytest_terminal_summary(terminalreporter):
    """Prints the largest errors against the reference vectors."""
    largest, count = {}, {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) != "call":
                continue
            for name, value in report.user_properties:
                if name.startswith("golden"):
                    largest[name] = max(largest.get(name, 0.0), value)
                    count[name] = count.get(name, 0) + 1
    for name, value in largest.items():
        terminalreporter.write_line(
            f"largest {name}: {value:.2g} of the largest value ({count[name]} files)"
        )
