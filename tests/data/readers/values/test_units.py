"""Units as people write them."""

import pytest

from earthformer_jax.data.readers.values.units import (
    CELSIUS,
    FAHRENHEIT,
    KELVIN,
    OTHER,
    UNKNOWN,
    conversion,
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


@pytest.mark.parametrize(
    ("a", "b", "factor", "offset"),
    [
        ("degC", "K", 1, 273.15),
        ("K", "celsius", 1, -273.15),
        ("degF", "degC", 5 / 9, -160 / 9),
        ("K", "kelvin", 1, 0),
        ("Pa", "hPa", 0.01, 0),
        ("mb", "Pa", 100, 0),
        ("m", "mm", 1000, 0),
        ("kg m-2 s-1", "mm/day", 86400, 0),
        ("mm h-1", "kg m**-2 s**-1", 1 / 3600, 0),
        ("kg m-2", "mm", 1, 0),
        ("m s**-1", "knots", 1.9438444924406, 0),
        ("%", "1", 0.01, 0),
        ("kg kg**-1", "g/kg", 1000, 0),
        ("dBZ", "DBZ", 1, 0),
    ],
)
def test_conversion(a, b, factor, offset):
    assert conversion(a, b) == pytest.approx((factor, offset))
    back = conversion(b, a)
    assert back == pytest.approx((1 / factor, -offset / factor))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("K", "m"),
        ("degC", "mm/day"),
        ("W m-2", "J m-2"),
        ("m2 s-2", "m"),
        ("m", "mm/day"),
        ("dBZ", "mm/h"),
        ("apples", "m/s"),
        ("K", ""),
        ("", "K"),
    ],
)
def test_no_conversion(a, b):
    assert conversion(a, b) is None


def test_differences_of_temperature():
    assert conversion("degC", "K", difference=True) == (1, 0)
    assert conversion("degF", "K", difference=True) == pytest.approx((5 / 9, 0))
