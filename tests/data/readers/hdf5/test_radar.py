"""Radar composites: codes, no echo, times, and what is refused."""

import numpy as np
import pytest

from earthformer_jax.data.readers.layout import Wanted
from earthformer_jax.data.readers.series import open_cube
from earthformer_jax.data.readers.values import undeclared
from tests.data.readers.hdf5 import files

PATH = "dataset1/data1/data"


def read(path, *variables, **wanted):
    cube = open_cube(str(path), Wanted(variables=variables, **wanted))
    return cube, cube.frames.read(0, cube.frames.shape[0])


@pytest.fixture
def codes():
    codes = np.random.default_rng(0).integers(1, 200, (7, 12, 10)).astype(np.uint8)
    codes[:, :2], codes[:, 4] = 255, 0
    return codes


def clock(k):
    return f"{k // 4:02d}{15 * (k % 4):02d}00"


class TestOdim:
    @pytest.mark.parametrize("name", [(), (PATH,), ("dbzh",)])
    def test_values_times_and_gap(self, tmp_path, codes, name):
        for i, k in enumerate((0, 1, 2, 5, 6, 7, 8)):  # two are not there
            files.odim(tmp_path / f"{9 - i}.h5", codes[i], clock(k))
        cube, values = read(tmp_path / "*.h5", *name)
        want = 0.5 * codes[..., None].astype(np.float32) - 32
        want[codes == 255] = np.nan
        np.testing.assert_array_equal(values, want)
        assert (cube.names, cube.units) == (name or ("DBZH",), ("dBZ",))
        assert cube.segments.tolist() == [[0, 3], [3, 7]]
        assert cube.period(0, 7) == "2018-08-24..2018-08-24 02:00"
        assert "code 255 is missing; code 0 is no echo, -32" in cube.notes[0]

    @pytest.mark.parametrize(
        ("quantity", "dtype", "nodata", "undetect", "lowest"),
        [
            ("RATE", "f8", -9999000.0, -8888000.0, 0),
            ("DBZH", "f4", np.nan, -9999.0, -32),
            ("TH", "i2", -32768.0, -32767.0, -32),
            ("DBZH", "u2", 65535.0, 65534.0, 0),
        ],
    )
    def test_no_echo_is_the_lowest_value(
        self, tmp_path, quantity, dtype, nodata, undetect, lowest
    ):
        stored = np.array([[nodata, undetect], [1, 3], [4, 4]]).astype(dtype)
        rule = dict(gain=1.0, offset=0.0, nodata=nodata, undetect=undetect)
        path = tmp_path / "a.h5"
        files.odim(path, stored, "000000", quantity=quantity, **rule)
        values = read(path)[1][0, ..., 0]
        np.testing.assert_array_equal(values, [[np.nan, lowest], [1, 3], [4, 4]])

    def test_no_echo_is_no_fill_value(self, tmp_path):
        """Far from the few weak echoes, but declared."""
        codes = np.zeros((20, 12, 10), np.uint8)
        codes[:, 4] = np.random.default_rng(0).integers(80, 100, (20, 10))
        for k in range(20):
            files.odim(tmp_path / f"{k}.h5", codes[k], clock(k))
        cube, values = read(tmp_path / "*.h5")
        assert values.min() == -32
        undeclared.check_undeclared(values, cube.names, cube.codings)

    def test_unknown_quantity_without_echo_is_missing(self, tmp_path):
        stored = np.array([[-1.0, 2.0], [3.0, 4.0]], np.float32)
        path = tmp_path / "a.h5"
        files.odim(path, stored, "000000", quantity="VRADH", undetect=-1.0, gain=1.0)
        assert np.isnan(read(path)[1][0, 0, 0, 0])

    def test_quantities(self, tmp_path, codes):
        path = tmp_path / "a.h5"
        files.odim(path, {"DBZH": codes[0], "TH": codes[1]}, "001500")
        assert read(path)[0].names == ("DBZH", "TH")
        cube, values = read(path, "TH")
        want = np.where(codes[1] == 255, np.nan, 0.5 * codes[1].astype(float) - 32)
        np.testing.assert_array_equal(values[0, ..., 0], want)
        assert f"left out: {PATH}" in cube.notes
        with pytest.raises(ValueError, match="no variable 'RATE'.*data1/data .DBZH"):
            read(path, "RATE")

    def test_one_quantity_twice(self, tmp_path, codes):
        arrays = {f"dataset{i}/data1/data": codes[i] for i in (1, 2)}
        what = {"quantity": np.bytes_("DBZH"), "gain": 0.5, "offset": -32.0}
        rules = {f"dataset{i}/data1/what": what for i in (1, 2)}
        files.write(tmp_path / "a.h5", arrays, rules | {"what": {"object": "COMP"}})
        with pytest.raises(ValueError, match="several fields of one .* variables=data"):
            read(tmp_path / "a.h5")
        for i in (1, 2):
            rules[f"dataset{i}/what"] = {"enddate": "20180824", "endtime": f"0{i}0000"}
        files.write(tmp_path / "a.h5", arrays, rules | {"what": {"object": "COMP"}})
        cube, values = read(tmp_path / "a.h5")
        assert cube.period(0, 2) == "2018-08-24 01:00..2018-08-24 02:00"
        np.testing.assert_array_equal(values[1, ..., 0], 0.5 * codes[2] - 32.0)

    def test_without_a_date(self, tmp_path, codes):
        files.odim(tmp_path / "a.h5", codes[0], "000000", date="")
        cube, _ = read(tmp_path / "a.h5")
        assert cube.times is None
        assert "no date and time in the file" in cube.notes[-1]

    def test_polar_data_are_refused(self, tmp_path, codes):
        for kind in ("PVOL", "SCAN"):
            files.odim(tmp_path / "a.h5", codes[0], "000000", kind=kind)
            with pytest.raises(ValueError, match=f"polar data .object={kind}: rays"):
                read(tmp_path / "a.h5")


class TestKnmi:
    @pytest.mark.parametrize(
        ("formula", "scale", "offset"),
        [
            ("GEO = 0.5 * PV + -32", 0.5, -32),
            ("GEO=0.500000*PV+-32.000000", 0.5, -32),
            ("GEO=0.010000*PV+0.000000", 0.01, 0),
            ("GEO = PV", 1, 0),
        ],
    )
    def test_values_and_times(self, tmp_path, codes, formula, scale, offset):
        for k in range(7):
            moment = f"28-SEP-2016;14:{5 * k:02d}:00.000"
            files.knmi(tmp_path / f"{9 - k}.h5", codes[k], moment, formula=formula)
        cube, values = read(tmp_path / "*.h5")
        want = scale * codes.astype(float) + offset
        np.testing.assert_allclose(
            values[..., 0], np.where(codes == 255, np.nan, want), rtol=1e-6
        )
        assert (cube.names, cube.units) == (("REFLECTIVITY",), ("dBZ",))
        assert cube.period(0, 7) == "2016-09-28 14:00..2016-09-28 14:30"

    def test_wide_codes(self, tmp_path):
        stored = np.array([[65535, 255], [0, 100]], np.uint16)
        path = tmp_path / "a.h5"
        rule = dict(formula="GEO=0.01*PV+0", missing=65535)
        files.knmi(path, stored, "28-SEP-2016;14:00:00.000", **rule)
        want = np.array([[np.nan, 2.55], [0, 1]], np.float32)
        np.testing.assert_allclose(read(path)[1][0, ..., 0], want)

    def test_other_formulas_are_refused(self, tmp_path, codes):
        path = tmp_path / "a.h5"
        files.knmi(path, codes[0], "", formula="GEO = log(PV)")
        with pytest.raises(
            ValueError, match="calibration_formulas='GEO = log.PV.'; ex"
        ):
            read(path)
