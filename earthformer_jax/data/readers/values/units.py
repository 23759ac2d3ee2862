"""What the text of a unit means, however it is written."""

import functools
import logging
import re
import unicodedata

import numpy as np

KELVIN, CELSIUS, FAHRENHEIT, OTHER, UNKNOWN = "K", "degC", "degF", "other", ""
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
