import numpy as np
import pytest

from earthformer_jax import plotting
from earthformer_jax.data.dataset import Channel
from earthformer_jax.plotting.fields import colours_of, label_of, shown

GRAY = Channel(limits=(0, 1), colormap="gray")


def test_small_fields_are_enlarged_by_repeating_cells():
    fields = np.array([[[0, 1], [1, 0], [0, 0]]], float)
    pixels = plotting.render_frames(fields, GRAY, size=7)
    assert pixels.shape == (1, 6, 4, 3) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(
        pixels[0, ..., 0], 255 * fields[0].repeat(2, 0).repeat(2, 1)
    )


def test_large_fields_keep_their_size():
    assert plotting.render_frames(np.zeros((2, 5, 9)), GRAY, size=8).shape[1:3] == (
        5,
        9,
    )


def test_south_first_is_turned_over():
    fields = np.array([[[0.0], [1.0]]])
    north, south = (plotting.render_frames(fields, GRAY, x, size=1) for x in (0, 1))
    np.testing.assert_array_equal(south, north[:, ::-1])
    assert south[0, 0, 0, 0] == 255


def test_values_are_shown_in_their_units_before_they_are_coloured():
    channel = Channel(scale=2.0, offset=10.0, limits=(10, 12), colormap="gray")
    pixels = plotting.render_frames(np.array([[[0.0, 1.0]]]), channel, size=1)
    np.testing.assert_array_equal(pixels[0, 0, :, 0], [0, 255])


def test_the_unknown_is_grey():
    pixels = plotting.render_frames(np.array([[[np.nan, 1.0]]]), GRAY, size=1)
    np.testing.assert_array_equal(pixels[0, 0, 0], [209] * 3)


def test_limits_come_from_the_data_and_are_symmetric_for_diverging_maps():
    fields = [np.linspace(-1, 3, 1001), np.array([np.nan, np.inf])]
    colours = colours_of("viridis", None, fields)
    assert colours.low == pytest.approx(-1, abs=0.02)
    assert colours.high == pytest.approx(3, abs=0.02)
    assert colours.extend == "both"
    colours = colours_of("RdBu_r", None, fields)
    assert colours.low == -colours.high


@pytest.mark.parametrize("values", ([5.0, 5.0], [np.nan], []))
def test_constant_or_unknown_fields_have_limits(values):
    colours = colours_of("gray", None, [np.array(values)])
    assert colours.low < colours.high


def test_what_lies_beyond_the_limits_is_marked():
    for values, extend in (([0, 1], "neither"), ([0, 2], "max"), ([-1, 0], "min")):
        assert colours_of("gray", (0, 1), [np.array(values)]).extend == extend


def test_one_channel_in_its_units():
    fields = np.stack([np.zeros((1, 2, 2)), np.ones((1, 2, 2))], axis=-1)
    observed = np.ones(fields.shape, bool)
    observed[0, 0, 0, 1] = False
    channel = Channel("T", "K", scale=2.0, offset=1.0)
    np.testing.assert_array_equal(
        shown(fields, channel, 1, observed)[0], [[np.nan, 3], [3, 3]]
    )
    assert label_of(channel) == "T (K)" and label_of(GRAY) == "value"


def test_vertically_integrated_liquid_has_its_own_colours_and_levels():
    channel = Channel(scale=255.0, limits=(0, 255), colormap="vil")
    codes = np.array([0, 15.9, 16, 31, 58.9, 74, 133, 219, 254.9, 255, np.nan])
    pixels = plotting.render_frames(codes[None, None] / 255, channel, size=1)[0, 0]
    expected = [
        (0, 0, 0),
        (0, 0, 0),
        (77, 77, 77),
        (40, 190, 40),
        (40, 190, 40),
        (10, 105, 10),
        (245, 245, 0),
        (160, 0, 0),
        (160, 0, 0),
        (231, 0, 255),
        (209, 209, 209),
    ]
    assert [tuple(x) for x in pixels.tolist()] == expected
