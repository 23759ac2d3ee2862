"""Packing, fill values and valid ranges as the NetCDF conventions declare them."""

import numpy as np
import pytest
import xarray as xr
from xarray.conventions import decode_cf_variable

from earthformer_jax.data.readers.values.missing import coding, number_text

NAN = np.nan
CODES = [-32768, -32767, -3000, -2000, -1, 0, 1, 10000, 10001, 32767]


def decoded(attributes, stored, dtype, missing=()):
    stored = np.array(stored, dtype)
    return coding(attributes, dtype).decode(stored, missing)


@pytest.mark.filterwarnings("ignore:.*multiple fill values")
@pytest.mark.parametrize("dtype", ["i1", "u1", ">i2", "u2", "i4", "f4", ">f8"])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"scale_factor": 0.01},
        {"scale_factor": 0.5, "add_offset": 273.15, "_FillValue": 7},
        {"_FillValue": 3, "missing_value": 5},
    ],
)
def test_xarray_decodes_the_same(attributes, dtype):
    stored = np.arange(10).astype(dtype)
    typed = {
        key: np.dtype(dtype).type(value) if "alu" in key else value
        for key, value in attributes.items()
    }
    variable = xr.Variable("x", stored, typed)
    expected = decode_cf_variable("v", variable).values
    got = coding(typed, dtype).decode(stored)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6)


class TestFills:
    def test_several_and_different(self):
        attributes = {"_FillValue": 9.96921e36, "missing_value": np.array([-999.9, 3])}
        values = decoded(attributes, [-999.9, 9.96921e36, 3, 4], "f4")
        np.testing.assert_array_equal(values, [NAN, NAN, NAN, 4])

    def test_unsigned_numbers_in_signed_types(self):
        attributes = {"_Unsigned": "true", "_FillValue": np.int8(-1)}
        values = decoded(attributes, [0, 127, -128, -2, -1], "i1")
        np.testing.assert_array_equal(values, [0, 127, 128, 254, NAN])
        values = decoded({"_Unsigned": b"false"}, [1, 255], "u1")
        np.testing.assert_array_equal(values, [1, -1])

    def test_what_the_type_cannot_hold_marks_nothing(self):
        attributes = {"_FillValue": -9999.5, "missing_value": "none"}
        np.testing.assert_array_equal(decoded(attributes, [0, 241], "u1"), [0, 241])


class TestMissing:
    """Numbers of the user are values, not codes."""

    PACKED = {"scale_factor": 0.01, "add_offset": 100.0}

    @pytest.mark.parametrize("value", [755.35, 100.0, 100.37])
    def test_exactly_one_code(self, value):
        codes = np.arange(65536)
        values = decoded(self.PACKED, codes, "u2", [value])
        assert np.flatnonzero(np.isnan(values)) == [round((value - 100) / 0.01)]

    def test_stored_code_is_no_value(self):
        values = decoded(self.PACKED, [0, 1, 65535], "u2", [65535, 0, 1, 100.005])
        assert np.all(np.isfinite(values))

    def test_ends_of_large_types(self):
        """As they are shown, in single precision."""
        for dtype in ("i4", "u4", "i8"):
            end = np.iinfo(dtype).max
            shown = float(number_text(float(np.float32(end))))
            for packing in ({}, {"scale_factor": 1.0, "add_offset": 5.0}):
                missing = np.isnan(decoded(packing, [0, end // 2, end], dtype, [shown]))
                assert missing.tolist() == [False, False, True]

    def test_plain_numbers(self):
        values = decoded({}, [-999.9, 0, 1e20, np.inf], "f8", [-999.9, 1e20])
        np.testing.assert_array_equal(values, [NAN, 0, NAN, NAN])
        values = decoded({}, [2**24, 2**24 + 1], "i4", [2**24])
        np.testing.assert_array_equal(values, [NAN, 2**24])


class TestValidRange:
    def valid(self, attributes, codes=CODES, dtype="i2"):
        """The codes that are left."""
        kept = np.isfinite(decoded(attributes, codes, dtype))
        return np.array(codes)[kept].tolist()

    STORED = [-2000, -1, 0, 1, 10000]

    @pytest.mark.parametrize(
        ("attributes", "left"),
        [
            ({"valid_range": np.array([-2000, 10000], "i2")}, STORED),
            ({"valid_range": [-2000.0, 10000.0]}, STORED),
            ({"valid_range": b"-2000, 10000"}, STORED),
            ({"valid_min": -2000, "valid_max": np.array([10000], "i4")}, STORED),
            ({"valid_min": 1}, [1, 10000, 10001, 32767]),
            ({"valid_max": -2000}, [-32768, -32767, -3000, -2000]),
            ({"valid_range": [10000, -2000]}, CODES),  # in the wrong order
            ({"valid_range": [1, 2, 3], "valid_max": NAN}, CODES),
            ({"actual_range": [0, 1]}, CODES),
        ],
    )
    @pytest.mark.parametrize("scale", [None, 1e-4])
    def test_of_stored_numbers(self, attributes, left, scale):
        packing = {} if scale is None else {"scale_factor": scale}
        assert self.valid(attributes | packing) == left

    def test_of_values_if_floats(self):
        """As appendix A of the NetCDF Users' Guide has it."""
        percent = {"scale_factor": 0.01, "valid_range": [0.0, 100.0]}
        assert self.valid(percent) == [0, 1, 10000]
        upward = {"scale_factor": -0.01, "valid_min": 0.0}
        assert self.valid(upward) == [-32768, -32767, -3000, -2000, -1, 0]
        assert coding(upward, "i2").valid_text() == "from 0"

    def test_of_floats(self):
        """0.1 in double precision is less than 0.1 in single precision."""
        attributes = {"valid_min": 0.0, "valid_max": 0.1}
        values = decoded(attributes, [-1, 0, 0.1, 0.11], "f4")
        np.testing.assert_array_equal(values, np.array([NAN, 0, 0.1, NAN], "f4"))

    def test_unsigned(self):
        """GOES: 0 to 250, written as signed bytes."""
        attributes = {"_Unsigned": "true", "valid_range": np.array([0, -6], "i1")}
        assert self.valid(attributes, [0, 127, -6, -5], "i1") == [0, 127, -6]


def test_ends_of_the_type():
    assert coding({"scale_factor": 0.01}, "u2").ends() == (655.35,)
    assert coding({}, "i1").ends() == (127, -128, -127)
    assert coding({}, "u1").ends() == (255,)
    assert coding({}, "f4").ends() == ()


@pytest.mark.parametrize("value", [655.35, -1000, 1e20, -9.99e8, 80.60805, 0, 327.6701])
def test_text_reads_back(value):
    text = number_text(float(np.float32(value)))
    assert np.float32(text) == np.float32(value)
    assert len(text) <= len(repr(value))
