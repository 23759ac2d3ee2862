"""A save that fails is one error of ours, not pages of Orbax's."""

import logging
import sys

from earthformer_jax.training.disk import orbax_log


def logged(caplog, level, exc_info=None):
    logger = logging.getLogger("absl")
    path = "/site-packages/orbax/checkpoint/future.py"
    record = logger.makeRecord("absl", level, path, 1, "said", (), exc_info)
    caplog.clear()
    logger.handle(record)
    return [r.message for r in caplog.records]


def test_what_orbax_logs(caplog):
    hook = sys.unraisablehook
    try:
        orbax_log.drop_details()
        once = sys.unraisablehook
        orbax_log.drop_details()
        assert sys.unraisablehook is once
    finally:
        sys.unraisablehook = hook
    assert logged(caplog, logging.INFO) == []
    assert logged(caplog, logging.WARNING) == ["said"]
    error = OSError(28, "No space left on device")
    assert logged(caplog, logging.ERROR, (OSError, error, None)) == []
