"""Fill values that no attribute names, and real extremes that look like some."""

import numpy as np
import pytest

from earthformer_jax.data.readers.layout import Undecided
from earthformer_jax.data.readers.values import undeclared
from earthformer_jax.data.readers.values.missing import coding

RNG = np.random.default_rng(0)
SHAPE = 12, 20, 30
CELSIUS = RNG.normal(15, 8, SHAPE).astype(np.float32)
RAIN = np.maximum(RNG.gamma(0.3, 3, SHAPE) - 1, 0).astype(np.float32)
COLUMN = (2e15 * np.exp(RNG.standard_normal(SHAPE))).astype(np.float32)
PERCENT = RNG.integers(0, 101, SHAPE).astype(np.float32)
BYTES = RNG.integers(0, 256, SHAPE).astype(np.float32)
CLASSES = RNG.integers(0, 4, SHAPE).astype(np.float32)
BYTE = coding({}, "u1")


def with_some(values, code, count=5):
    values = np.array(values, np.float32)
    values.reshape(-1)[:count] = code
    return values


class TestFound:
    @pytest.mark.parametrize(
        "code",
        [-999, -9999, -99.9, 9999, 1e20, -32767]
        + [-1000, -9.99e8, 32767, 1e10, -200, 327.67, 9.96921e36],
    )
    def test_whichever_number_it_is(self, code):
        for count in (5, 100):
            found = undeclared.fill_values(with_some(CELSIUS, code, count))
            assert found == pytest.approx((code,))
        found = undeclared.fill_values(with_some(CELSIUS, code, 2))
        assert bool(found) == (code not in (-200, 327.67))

    @pytest.mark.parametrize(
        ("values", "code"),
        [
            (CELSIUS - 15, -99.99),
            (RAIN, -5555),
            (RAIN, 655.35),
            (COLUMN, 1e20),
            (COLUMN, -1e30),
            (COLUMN, 9.96921e36),
        ],
    )
    def test_beside_other_values(self, values, code):
        found = undeclared.fill_values(with_some(values, code))
        assert found == pytest.approx((code,))

    def test_once_if_huge(self):
        assert undeclared.fill_values(with_some(CELSIUS, 1e15, 1)) == (1e15,)
        assert undeclared.fill_values(with_some(COLUMN, 1e20, 1)) == (1e20,)

    def test_several(self):
        """All at once, so that the advice is complete."""
        values = CELSIUS.copy()
        for row, code in enumerate((-1000, -2000, -3000, 1e9, 1e20)):
            values[2:5, row] = code
        found = undeclared.fill_values(values)
        assert found == (-3000, -2000, -1000, 1e9, 1e20)

    def test_codes_at_the_end_of_the_type(self):
        values = with_some(with_some(PERCENT, 253, 99), 255, 50)
        assert undeclared.fill_values(values) == ()
        assert undeclared.fill_values(values, BYTE) == (253, 255)
        packed = coding({"scale_factor": 0.01, "add_offset": 290.0}, "i2")
        values = with_some(CELSIUS + 290, -37.67)
        assert undeclared.fill_values(values, packed) == pytest.approx((-37.67,))

    def test_land_at_zero(self):
        """A cell that is 0 at all times, among kelvins."""
        values = CELSIUS + 290
        values[:, 3:9] = 0
        assert undeclared.fill_values(values) == (0,)

    def test_message(self):
        values = with_some(CELSIUS, -1000, 72)[..., None]
        message = "1 % of 'sst' are -1000, far .* missing=-1000; if they .* missing=nan"
        with pytest.raises(Undecided, match=message) as caught:
            undeclared.check_undeclared(values, ("sst",), ())
        assert caught.value.choices == ({"missing": "-1000"},)


def shapes():
    """Bright shapes that move on black."""
    values = np.zeros(SHAPE)
    for t in range(len(values)):
        values[t, t : t + 5, 5:9] = 250 + RNG.random((5, 4))
    return values


def two_storms():
    values = np.zeros(SHAPE)
    values[0, :3, 0], values[1, :2, 0] = 0.1, 50.3
    return values


def dry():
    """Rain in tenths of a millimetre, with one storm in two cells."""
    values = np.round(np.minimum(RAIN, 2), 1)
    values[3, 4, 4:6] = 9.9
    return values


def still(seed):
    """Emissions of a few large sources, each in four cells, the same at all times."""
    rng = np.random.default_rng(seed)
    sources = np.exp(3 * rng.standard_normal((1, 10, 15)))
    return np.repeat(np.repeat(np.repeat(sources, 2, 1), 2, 2), 12, 0)


class TestNotFound:
    @pytest.mark.parametrize(
        "values",
        [
            CELSIUS,
            RAIN,
            COLUMN,
            PERCENT,
            BYTES,
            np.minimum(2 * BYTES, 255),  # saturated
            np.where(RAIN > 4, 20 + RAIN, 0),  # rare and heavy
            CLASSES,
            CELSIUS > 15,  # a mask
            with_some(CELSIUS, np.nan),
            with_some(CELSIUS, -999, count=1),  # once: not a habit
            np.linspace(-2000, 3000, 1000),
            with_some(np.zeros(1000), 255),  # a picture in black and white
            shapes(),
            two_storms(),
            dry(),
            *map(still, range(5)),
            np.full(10, np.nan),
            np.full(10, 255.0),
            np.full(10, 1e20),
            np.zeros(0),
        ],
    )
    @pytest.mark.parametrize("code", [None, BYTE])
    def test_real_values(self, values, code):
        assert undeclared.fill_values(np.array(values, np.float32), code) == ()

    def test_saturation_of_a_packed_type(self):
        packed = coding({"scale_factor": 0.1, "add_offset": -10.0}, "u1")
        values = np.minimum(RAIN + 10, 15.5)
        assert undeclared.fill_values(values, packed) == ()


class TestUnseen:
    VALUES = np.array([0, 3, 655.35, 655.35], np.float32).reshape(4, 1, 1, 1)

    def unseen(self, *missing):
        packed = coding({"scale_factor": 0.01}, "u2")
        return undeclared.unseen(self.VALUES, ("rr",), (packed,), missing)

    def test_values(self):
        assert self.unseen(655.35, 0, np.nan) == []
        assert self.unseen(655.35, -1) == [-1]

    def test_stored_number(self):
        message = "missing=65535: no value of 'rr' is that; it is how 655.35 is stored"
        with pytest.raises(Undecided, match=message + ", which 50 % .* missing=655.35"):
            self.unseen(65535)
