"""What the text of a unit means, however it is written."""

import functools
import logging
import re
import unicodedata

import numpy as np

KELVIN, CELSIUS, FAHRENHEIT, OTHER, UNKNOWN = "K", "degC", "degF", "other", ""
# Kelvins in a degree, and kelvins at its zero.
ZEROS = {
    KELVIN: (1.0, 0.0),
    CELSIUS: (1.0, 273.15),
    FAHRENHEIT: (5 / 9, 459.67 * 5 / 9),
}
# Words for degrees of temperature, in lower case; others may stand beside them.
WORDS = {
    KELVIN: ("k", "kelvin", "kelvins"),
    CELSIUS: ("c", "celsius", "celcius", "centigrade"),
    FAHRENHEIT: ("f", "fahrenheit", "farenheit"),
}
BESIDE = ("scale", "temperature", "anomaly", "")
# Spellings to which the registry of CF gives another meaning: millibarn.
MEANT = {"mb": "mbar", "mbs": "mbar"}
# Of the International Temperature Scale, which differs by less than 0.02 K.
SCALES = r"\bits[-_ ]?(90|68|48)\b"


@functools.cache
def temperature_unit(text: str) -> str:
    """The unit of temperature that a text names.

    Args:
        text: "K", "Celsius_scale", "deg. C", "℃", ...

    Returns:
        KELVIN, CELSIUS, FAHRENHEIT; OTHER if it is a unit of something else, or a
        multiple of a degree; UNKNOWN if it means nothing, as "" does.
    """
    words = _words(text)
    meant = [word for word in words if word not in BESIDE]
    for unit, names in WORDS.items():
        if meant and all(word in names for word in meant):
            return OTHER if re.search(r"\d", _plain(text)) else unit
    something = meant or (text.strip() and not words)
    return OTHER if something and _is_known(text) else UNKNOWN


def named_temperature(text: str) -> str:
    """KELVIN, CELSIUS or FAHRENHEIT, if a text names one of them; otherwise "".

    Other than `temperature_unit`, it does not ask the registry of units.
    """
    meant = [word for word in _words(text) if word not in BESIDE]
    known = meant and any(set(meant) <= set(names) for names in WORDS.values())
    unit = temperature_unit(text) if known else OTHER
    return unit if unit in WORDS else ""


def same_units(a: str, b: str) -> bool:
    """Whether two units mean the same, or one is not stated: "mm/h" and "mm h-1"."""
    if not a.strip() or not b.strip() or a.strip() == b.strip():
        return True
    kinds = {temperature_unit(text) for text in (a, b)}
    if kinds & {KELVIN, CELSIUS, FAHRENHEIT}:
        return len(kinds) == 1
    try:
        zero, one = (
            _registry().Quantity(x, _meant(a)).to(_meant(b)).magnitude
            for x in (0.0, 1.0)
        )
    except Exception:  # the registry has an exception for every way to be no unit
        return a.lower().split() == b.lower().split()  # "dBZ" and "DBZ"
    return bool(np.allclose([zero, one], [0, 1], rtol=1e-9, atol=1e-12))


def _plain(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text.replace("º", " ")).lower()
    return re.sub(SCALES, " ", plain)


def _words(text: str) -> list[str]:
    """The words of a unit in lower case, without "degrees"."""
    found = re.findall(r"[^\W\d_]+", _plain(text))
    return [re.sub("^deg(ree)?s?", "", word) for word in found]


def conversion(
    a: str, b: str, *, difference: bool = False
) -> tuple[float, float] | None:
    """How values in one unit become values in another: value * factor + offset.

    Mass of water per area and its depth are converted into each other by its density of
    1000 kg m-3, as is usual for precipitation.

    Args:
        a: unit of the values.
        b: the other unit.
        difference: whether the values are differences, such as anomalies, for which
            the zero of a temperature scale does not matter.

    Returns:
        factor and offset; None if one cannot be converted into the other, or a text is
        not a unit.
    """
    if a.strip() and b.strip() and same_units(a, b):
        return 1.0, 0.0
    if not a.strip() or not b.strip():
        return None
    kinds = temperature_unit(a), temperature_unit(b)
    if all(kind in ZEROS for kind in kinds):
        (step_a, zero_a), (step_b, zero_b) = (ZEROS[kind] for kind in kinds)
        offset = 0.0 if difference else (zero_a - zero_b) / step_b
        return step_a / step_b, offset
    density = _registry().Quantity(1000.0, "kg/m^3")
    for change in (lambda x: x, lambda x: x / density, lambda x: x * density):
        try:
            low, one, two = (
                change(_registry().Quantity(x, _meant(a))).to(_meant(b)).magnitude
                for x in (0.0, 1.0, 2.0)
            )
        except Exception:  # the registry has an exception for every way to be no unit
            continue
        if np.isclose(two - one, one - low, rtol=1e-9):
            return float(one - low), float(low)
    return None


def _meant(text: str) -> str:
    return MEANT.get(text.strip().lower(), text.strip())


def _is_known(text: str) -> bool:
    """Whether a text is a unit of anything."""
    try:
        _registry().parse_units(text)
    except Exception:  # pint has many, for texts that are not units
        return False
    return True


@functools.cache
def _registry():
    """The units of CF, which take a second to import: only for unusual texts."""
    logger = logging.getLogger("pint.util")
    logger.disabled = True  # it warns of every unit that CF defines in another way
    try:
        from cf_xarray.units import units
    finally:
        logger.disabled = False
    return units
