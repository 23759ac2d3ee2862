"""Training curves of several types are compared by hand-computed numbers."""

import pytest

from benchmarks import precision


def run(*validation, skipped=0):
    return {"loss": [], "validation": list(validation), "skipped": skipped}


def test_means_differences_and_noise():
    curves = {
        "float32": [run(4.0, 1.0), run(4.0, 3.0)],
        "float16": [run(5.0, 2.0, skipped=3), run(3.0, 6.0, skipped=1)],
    }
    found = precision.compare(curves)
    assert found["float32"] == pytest.approx(
        dict(best=2.0, spread=2**0.5, difference=0.0, noise=2**0.5, curve=0, skipped=0)
    )
    # Best validations 2 and 3; mean curves (4, 2) and (4, 4).
    assert found["float16"] == pytest.approx(
        dict(
            best=2.5,
            spread=0.5**0.5,
            difference=0.5,
            noise=((2 + 0.5) / 2) ** 0.5,
            curve=1.0,
            skipped=4,
        )
    )
