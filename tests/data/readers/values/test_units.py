"""Units as people write them."""

import pytest

from earthformer_jax.data.readers.values.units import (
    CELSIUS,
    FAHRENHEIT,
    KELVIN,
    OTHER,
    UNKNOWN,
    temperature_unit,
)


@pytest.mark.parametrize(
    ("unit", "texts"),
    [
        (
            KELVIN,
            ["K", "kelvin", "Kelvins", "degK", "deg_K", "degrees Kelvin", "\u212a"],
        ),
        (
            CELSIUS,
            ["C", "c", "degC", "deg_C", "deg. C", "Degrees Celsius", "degree_celsius"]
            + ["Celsius_scale", "celcius", "degreeC", "℃", "°C", "º C", "Celsius (C)"]
            + ["degree_Celsius ITS-90", "centigrade"],
        ),
        (FAHRENHEIT, ["F", "degF", "Fahrenheit", "degrees_F", "℉"]),
        (OTHER, ["m/s", "m s-1", "psu", "%", "Pa", "K m-1", "0.1 K", "K*10", "mm/day"]),
        (UNKNOWN, ["", "-", "unknown", "degrees", "SST", "temp_units", "0.1"]),
    ],
)
def test_meaning(unit, texts):
    assert {text: temperature_unit(text) for text in texts} == dict.fromkeys(
        texts, unit
    )
