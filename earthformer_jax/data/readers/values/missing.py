"""From stored numbers to values: packing, and which of them are missing.

One rule for all formats. A file declares how numbers are stored and which of them mark
missing data by the attributes of the NetCDF conventions; a user adds values as they
appear after unpacking (`missing`), never stored codes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FILL_ATTRIBUTES = ("_FillValue", "missing_value")
# A value that a user gives is met within this relative distance, or this share of the
# step between stored numbers.
TOLERANCE, STEP_TOLERANCE = 1e-6, 1e-3
EXACT = 2**24  # float32, in which values are shown, holds no larger integers exactly


@dataclasses.dataclass(frozen=True)
class Coding:
    """How the stored numbers of a variable are turned into values.

    value = stored * scale + offset.

    Attributes:
        dtype: of the numbers, after `_Unsigned` is applied.
        scale: factor; 1 if the numbers are not packed.
        offset: added after scaling.
        fills: stored numbers that mark missing data.
        valid: least and largest stored number that is valid.
        known: values whose meaning is declared, such as "no echo" of radar: they are
            not missing, however far they are from others.
    """

    dtype: np.dtype
    scale: float = 1.0
    offset: float = 0.0
    fills: tuple[float, ...] = ()
    valid: tuple[float, float] = (-np.inf, np.inf)
    known: tuple[float, ...] = ()

    @property
    def packed(self) -> bool:
        """Whether values differ from the stored numbers."""
        return (self.scale, self.offset) != (1.0, 0.0)

    @property
    def limited(self) -> bool:
        """Whether a valid range is declared that excludes some stored numbers."""
        low, high = _type_limits(self.dtype)
        return self.valid[0] > low or self.valid[1] < high

    def value(self, stored: float) -> float:
        """The value of a stored number."""
        return float(stored) * self.scale + self.offset

    def valid_text(self) -> str:
        """The valid range, of values: "-0.2..1", "from 0"."""
        low, high = sorted(map(self.value, self.valid))
        if np.isfinite(low) and np.isfinite(high):
            return f"{low:g}..{high:g}"
        return f"up to {high:g}" if np.isfinite(high) else f"from {low:g}"

    def ends(self) -> tuple[float, ...]:
        """Values of the extreme numbers of an integer type, often used for "missing".

        The largest, and of signed types the two smallest: -32767 is the default fill
        value of NetCDF. () if the type is not an integer.
        """
        if self.dtype.kind not in "iu":
            return ()
        info = np.iinfo(self.dtype)
        stored = [info.max] + [info.min, info.min + 1] * (self.dtype.kind == "i")
        return tuple(map(self.value, stored))

    def codes(self) -> tuple[float, ...]:
        """`ends`, and the other large bytes that mark land, cloud and night."""
        more = range(251, 255) if self.dtype == np.uint8 else ()
        return self.ends() + tuple(map(self.value, more))

    def decode(self, stored, missing: Sequence[float] = ()) -> np.ndarray:
        """float32 values; NaN where they are missing or not finite.

        Args:
            stored: numbers of any shape, as they are in the file.
            missing: further values, after unpacking, that mark missing data.
        """
        stored = np.asarray(stored)
        if stored.dtype.kind in "iu" and stored.dtype.kind != self.dtype.kind:
            stored = stored.astype(stored.dtype.newbyteorder("=")).view(self.dtype)
        unknown = np.zeros(stored.shape, bool)
        for fill in self.fills:
            unknown |= stored == _as_stored(fill, stored.dtype)
        low, high = (_as_stored(end, stored.dtype) for end in self.valid)
        if self.limited:
            unknown |= (stored < low) | (stored > high)
        with np.errstate(over="ignore", invalid="ignore"):
            values = stored.astype(np.float32)
            if self.packed:  # float32 cannot hold all numbers of 32 bits
                exact = stored.astype(np.float64) * self.scale + self.offset
                values = exact.astype(np.float32)
        for value in missing:
            unknown |= self._equal(stored, values, value)
        values[unknown | ~np.isfinite(values)] = np.nan
        return values

    def _equal(self, stored: np.ndarray, values: np.ndarray, value: float):
        """Where a value occurs: exactly if the stored numbers are integers."""
        close = np.zeros(values.shape, bool)
        if abs(value) <= float(
            np.finfo(np.float32).max
        ):  # others are not finite as float32
            close = np.isclose(values, value, rtol=TOLERANCE, atol=0)
        if stored.dtype.kind == "f" or not self.scale:
            return close
        code = float(np.rint((value - self.offset) / self.scale))
        if abs(code) > EXACT:
            return close
        distance = abs(self.value(code) - value)
        if distance > TOLERANCE * abs(value) + STEP_TOLERANCE * abs(self.scale):
            return np.zeros(stored.shape, bool)
        return stored == code


def coding(attributes: Mapping[str, Any], dtype) -> Coding:
    """The coding that the attributes of a variable declare.

    Understood are `scale_factor`, `add_offset`, `_FillValue`, `missing_value`,
    `_Unsigned`, and `valid_range` or `valid_min` and `valid_max`: of stored numbers, or
    of values if they are floats while integers are stored (NetCDF Users' Guide,
    appendix A). A range whose ends are in the wrong order is ignored, and so is what is
    no number.

    Args:
        attributes: of the variable, as they are in the file.
        dtype: of the stored numbers.
    """
    dtype = np.dtype(dtype).newbyteorder("=")
    unsigned = _text(attributes.get("_Unsigned", "")).lower()
    if dtype.kind == "i" and unsigned == "true":
        dtype = np.dtype(f"u{dtype.itemsize}")
    elif dtype.kind == "u" and unsigned == "false":
        dtype = np.dtype(f"i{dtype.itemsize}")
    scale = numbers(attributes.get("scale_factor"))
    offset = numbers(attributes.get("add_offset"))
    fills = [
        _wrapped(number, dtype, bool(unsigned))
        for name in FILL_ATTRIBUTES
        for number in numbers(attributes.get(name))
    ]
    plain = Coding(
        dtype=dtype,
        scale=float(scale[0]) if scale else 1.0,
        offset=float(offset[0]) if offset else 0.0,
        fills=tuple(dict.fromkeys(fills)),
    )
    valid = _valid(attributes, plain, bool(unsigned))
    return dataclasses.replace(plain, valid=valid)


def number_text(value: float) -> str:
    """The shortest text that reads back as the same float32: "655.35", "-1000"."""
    texts = (f"{value:.{digits}g}" for digits in range(6, 10))
    with np.errstate(over="ignore"):
        same = (text for text in texts if np.float32(text) == np.float32(value))
        return next(same, f"{value:.9g}")


def numbers(value) -> list:
    """The numbers of an attribute, also if written as text; Python's int and float.

    [] if it is not a number.
    """
    if value is None:
        return []
    if isinstance(value, str | bytes):
        words = _text(value).strip("[]() ").replace(",", " ").split()
        try:
            return [float(word) for word in words]
        except ValueError:
            return []
    array = np.asarray(value).ravel()
    if array.dtype.kind in "SU":
        return [number for word in array for number in numbers(str(word))]
    return array.tolist() if array.dtype.kind in "iuf" else []


def _valid(
    attributes: Mapping[str, Any], plain: Coding, wrap: bool
) -> tuple[float, float]:
    """Least and largest valid stored number; infinite where nothing is declared."""
    everything = (-np.inf, np.inf)
    declared = attributes.get("valid_range")
    ends = numbers(declared)
    floats = _is_float(declared)
    if len(ends) != 2:
        ends = []
        for name, default in (("valid_min", -np.inf), ("valid_max", np.inf)):
            given = numbers(attributes.get(name))
            ends.append(given[0] if given else default)
            floats |= bool(given) and _is_float(attributes[name])
    low, high = (
        default if np.isnan(end) else _wrapped(end, plain.dtype, wrap)
        for end, default in zip(ends, everything, strict=True)
    )
    if low > high:
        return everything
    if not (floats and plain.packed and plain.scale and plain.dtype.kind in "iu"):
        return low, high
    limits = sorted(map(plain.value, _type_limits(plain.dtype)))
    if low <= limits[0] and limits[1] <= high:  # pointless, unless of stored numbers
        return low, high
    low, high = sorted((end - plain.offset) / plain.scale for end in (low, high))
    return (  # the ends themselves are valid
        float(np.ceil(low - STEP_TOLERANCE)),
        float(np.floor(high + STEP_TOLERANCE)),
    )


def _type_limits(dtype: np.dtype) -> tuple[float, float]:
    if dtype.kind not in "iu":
        return -np.inf, np.inf
    info = np.iinfo(dtype)
    return float(info.min), float(info.max)


def _wrapped(number, dtype: np.dtype, wrap: bool):
    """A number of an attribute that is signed where the data are unsigned, or not."""
    if not wrap or not isinstance(number, int) or dtype.kind not in "iu":
        return number
    bits = 8 * dtype.itemsize
    number %= 2**bits
    return number - 2**bits * (dtype.kind == "i" and number >= 2 ** (bits - 1))


def _as_stored(number, dtype: np.dtype):
    """A declared number as the data hold it: 0.1 is another number in float32."""
    if dtype.kind != "f":
        return number
    with np.errstate(over="ignore"):
        return dtype.type(number)


def _is_float(value) -> bool:
    return value is not None and np.asarray(value).dtype.kind not in "iu"


def _text(value) -> str:
    value = np.asarray(value).ravel()
    first = value[0] if value.size else ""
    return first.decode() if isinstance(first, bytes) else str(first)
