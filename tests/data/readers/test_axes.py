"""The meaning of the axes of arrays without names."""

import numpy as np
import pytest

from earthformer_jax.data.readers import axes as axes_lib
from earthformer_jax.data.readers.layout import Undecided


class TestGuess:
    @pytest.mark.parametrize(
        ("shape", "axes"),
        [
            ((40, 1226, 760), "thw"),
            ((384, 384, 36), "hwt"),
            ((64, 64, 64), "thw"),
            ((365, 10, 12, 4), "thwc"),
            ((5, 384, 384, 49), "nhwt"),
            ((100, 20, 64, 64), "nthw"),
            ((100, 20, 48, 64), "nthw"),
            ((2, 3, 8, 9, 1), "nthwc"),
            ((8, 9), "hw"),
        ],
    )
    def test_channels_last_or_none(self, shape, axes):
        assert axes_lib.guess_axes(shape) == axes

    @pytest.mark.parametrize(
        ("shape", "axes"),
        [
            ((12, 20, 1, 16, 16), "ntchw"),
            ((12, 20, 3, 20, 24), "ntchw"),
            ((12, 2, 20, 16, 16), "ncthw"),
            ((200, 3, 16, 16), "tchw"),
            ((200, 1, 16, 16), "tchw"),
            ((5, 16, 16, 25, 1), "nhwtc"),
            ((1000, 8, 1, 64, 64), "ntchw"),  # not one frame of eight channels
        ],
    )
    def test_channels_elsewhere(self, shape, axes):
        assert axes_lib.guess_axes(shape) == axes

    @pytest.mark.parametrize(
        ("shape", "choices"),
        [
            ((3, 200, 16, 16), ["nthw", "cthw"]),
            ((2, 2, 32, 32), ["tchw", "cthw"]),
            ((12, 4, 2, 32, 32), ["ntchw", "ncthw"]),
            ((10, 12, 60), ["thw", "hwt"]),  # ten frames, or cells of 10 x 12
            ((100, 10, 12, 60), ["nthw", "nhwt"]),
            ((64, 80, 3), ["thw", "hwc"]),  # one frame of three channels
            ((3, 64, 80), ["thw", "chw"]),
        ],
    )
    def test_two_readings_are_refused(self, shape, choices):
        message = f"choose with axes={choices[0]} or axes={choices[1]}"
        with pytest.raises(Undecided, match=message) as caught:
            axes_lib.guess_axes(shape, "a.npy")
        assert caught.value.choices == tuple({"axes": axes} for axes in choices)

    def test_one_sequence_is_one_channel(self):
        """Two readings that give the same values are no reason to refuse."""
        assert axes_lib.guess_axes((1, 200, 16, 16)) == "nthw"

    def test_no_guess(self):
        for shape in ((3,), (1, 1, 1, 1, 1, 1)):
            with pytest.raises(ValueError, match="expected time, rows and columns"):
                axes_lib.guess_axes(shape)

    def test_note_names_the_alternatives(self):
        note = axes_lib.axes_note("thw", (40, 30, 20))
        assert note.startswith("axes assumed to be 'thw' (t=40, h=30, w=20); if")
        assert note.endswith("set `axes`, for example axes=twh or axes=hwt")


class TestFromLengths:
    def test_coordinates_decide(self):
        known = {"t": {60}, "h": {10}, "w": {12}}
        assert axes_lib.from_lengths((60, 12, 10), known) == "twh"
        assert axes_lib.from_lengths((10, 12, 60), {"h": {10}, "w": {12}}) == "hwt"

    def test_undecided(self):
        assert not axes_lib.from_lengths((60, 10, 10), {"h": {10}, "w": {10}})
        assert not axes_lib.from_lengths((60, 12, 10), {"t": {60}})


class TestGiven:
    @pytest.mark.parametrize("axes", ["th", "thwx", "thww", "nhw", "", "h"])
    def test_wrong_letters(self, axes):
        with pytest.raises(ValueError, match="expected the letters t, h and w, each"):
            axes_lib.check_axes(axes, (1, 2, 3), "x")

    def test_wrong_number(self):
        message = r"axes='thw' names 3 axes; x has 4: \(1, 2, 3, 4\)"
        with pytest.raises(ValueError, match=message):
            axes_lib.check_axes("thw", (1, 2, 3, 4), "x")

    @pytest.mark.parametrize("axes", ["nthwc", "cwhtn", "whnct"])
    def test_every_order_reads_the_same(self, axes):
        whole = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
        array = whole.transpose(["nthwc".index(a) for a in axes])
        part = axes_lib.read_array(
            array, axes, 1, slice(0, 3, 2), slice(1, 4), slice(2, 5)
        )
        np.testing.assert_array_equal(part, whole[1, ::2, 1:4, 2:5])

    def test_a_frame_of_channels(self):
        frame = np.arange(24).reshape(3, 4, 2)
        axes_lib.check_axes("hwc", frame.shape, "x")
        every = slice(None)
        values = axes_lib.read_array(frame, "hwc", 0, every, every, every)
        np.testing.assert_array_equal(values, frame[None])
