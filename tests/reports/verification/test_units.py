import pytest

from earthformer_jax.reports.verification.units import unit_of, units_text


@pytest.mark.parametrize(
    ("score", "squared", "units"),
    [
        ("rmse", "K^2", "K"),
        ("bias", "K^2", "K"),
        ("frequency_bias", "K^2", "1"),
        ("mae", "sum over the pixels of a frame", "sum over the pixels of a frame"),
        ("rmse", "sum over the pixels of a frame", ""),
        ("ssim", "K^2", "1"),
        ("csi", "", "1"),
        ("something", "K^2", ""),
    ],
)
def test_units(score, squared, units):
    assert unit_of(score, squared) == units


def test_units_follow_a_name():
    assert units_text("K^2") == " (K²)" and units_text("1") == units_text("") == ""
    assert units_text("(model units)^2") == ", (model units)²"
