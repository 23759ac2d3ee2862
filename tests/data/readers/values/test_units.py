"""Units as people write them."""

import pytest

from earthformer_jax.data.readers.values.units import (
    CELSIUS,
    FAHRENHEIT,
    KELVIN,
    OTHER,
    UNKNOWN,
    same_units,
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


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("mm/h", "mm h-1", True),
        ("mm hr-1", "mm/hour", True),
        ("kg m-2 s-1", "kg/m2/s", True),
        ("kg m**-2 s**-1", "kg m-2 s-1", True),
        ("hPa", "mbar", True),
        ("hPa", "mb", True),
        ("dBZ", "DBZ", True),
        ("degrees_C", "celsius", True),
        ("Celsius_scale", "deg. C", True),
        ("K", "", True),
        ("unknown unit", "unknown unit", True),
        ("degC", "K", False),
        ("mm/h", "mm/day", False),
        ("dBZ", "mm/h", False),
        ("m", "K", False),
        ("%", "1", False),
    ],
)
def test_units_of_one_meaning(a, b, same):
    assert same_units(a, b) == same_units(b, a) == same


def test_the_registry_says_nothing(caplog):
    """It would warn of every unit that CF defines in another way than pint."""
    assert same_units("kg m-2 day-1", "mm day-1") is False
    assert not caplog.records
