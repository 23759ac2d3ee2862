"""Decibels of rain, and which units are those of rain."""

import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.data.nowcasting.rain import Rain, of_units
from earthformer_jax.data.sevir.rain import RAIN
from earthformer_jax.data.sevir.windows import vil_kg_per_m2


def test_decibels_of_rates():
    values = jnp.array([0.0, 0.05, 0.1, 1.0, 100.0])
    np.testing.assert_allclose(Rain(0.1).above(values), [0, 0, 0, 10, 30], atol=1e-5)


def test_reflectivity_is_that_of_marshall_and_palmer():
    rate = np.array([0.1, 1.0, 10.0])
    found = of_units("dBZ")
    assert found is not None
    reflectivity = 10 * np.log10(200 * rate**1.6)
    np.testing.assert_allclose(
        found.above(jnp.asarray(reflectivity)), [0, 10, 20], atol=1e-4
    )


def test_codes_are_logarithms_of_the_liquid():
    codes = np.array([40, 120, 254])
    liquid = vil_kg_per_m2(codes) / np.exp((16 - 83.9) / 38.9)
    decibels = RAIN.above(jnp.asarray(codes))
    np.testing.assert_allclose(decibels, 10 * np.log10(liquid), rtol=1e-5)


@pytest.mark.parametrize(
    "units, name, standard_name, least",
    [
        ("mm/h", "x", "", 0.1),
        ("mm h-1", "x", "", 0.1),
        ("mm/day", "x", "", 2.4),
        ("kg m-2 s-1", "x", "", 0.1 / 3600),
        ("m s-1", "x", "lwe_precipitation_rate", 1e-4 / 3600),
        ("m s-1", "rain", "", 1e-4 / 3600),
    ],
)
def test_rates_of_rain(units, name, standard_name, least):
    found = of_units(units, name, standard_name)
    assert found is not None and found.decibels is None
    assert found.least == pytest.approx(least)


@pytest.mark.parametrize(
    "units, name",
    [
        ("cm s-1", "u"),
        ("m s-1", "u10"),
        ("K", "t2m"),
        ("", "rain"),
        ("mm", "tp"),
        ("kg kg-1", "q"),
    ],
)
def test_what_is_not_a_rate_of_rain(units, name):
    assert of_units(units, name) is None
