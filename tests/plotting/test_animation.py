import numpy as np
import pytest
from PIL import Image

from earthformer_jax import plotting
from earthformer_jax.data.dataset import Channel, Display


def read(path) -> np.ndarray:
    with Image.open(path) as image:
        frames = []
        for i in range(image.n_frames):
            image.seek(i)
            frames.append(np.asarray(image.convert("RGB")))
    return np.stack(frames)


def flat_colours(count=5, colours=40):
    rng = np.random.default_rng(0)
    palette = rng.integers(0, 256, (colours, 3), dtype=np.uint8)
    return palette[rng.integers(0, colours, (count, 12, 16))]


def test_few_colours_are_kept_exactly(tmp_path):
    frames = flat_colours()
    path = tmp_path / "figures" / "a.gif"
    plotting.save_animation(frames, path, fps=5)
    np.testing.assert_array_equal(read(path), frames)
    assert [p.name for p in path.parent.iterdir()] == ["a.gif"]
    with Image.open(path) as image:
        assert image.info["duration"] == 200 and image.info["loop"] == 0


def test_rare_colours_become_the_nearest(tmp_path):
    frames = np.zeros((2, 100, 100, 3), np.uint8)
    frames[0, :3] = np.arange(300, dtype=np.uint16).reshape(3, 100, 1) * 255 // 300
    frames[1, :, :, 0] = 77
    plotting.save_animation(frames, tmp_path / "a.gif")
    apart = np.abs(read(tmp_path / "a.gif").astype(int) - frames)
    assert apart.max() <= 1


def test_many_colours_are_approximated(tmp_path):
    y, x = np.mgrid[:64, :64]
    frames = np.stack([np.stack([4 * x, 4 * y, 0 * x + 60 * i], -1) for i in range(3)])
    plotting.save_animation(frames.astype(np.uint8), tmp_path / "a.gif")
    apart = np.abs(read(tmp_path / "a.gif").astype(int) - frames)
    assert apart.mean() < 10


@pytest.mark.parametrize(
    "frames",
    (
        np.zeros((2, 4, 4, 3)),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((2, 4, 4, 1), np.uint8),
    ),
)
def test_other_arrays_are_refused(tmp_path, frames):
    with pytest.raises(ValueError, match=r"needs uint8 frames \[t, h, w, 3\]; got"):
        plotting.save_animation(frames, tmp_path / "a.gif")
    assert not list(tmp_path.iterdir())


def test_no_frames_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        plotting.save_animation(np.zeros((0, 4, 4, 3), np.uint8), tmp_path / "a.gif")


def test_inputs_then_truth_and_forecasts_side_by_side():
    display = Display((Channel(limits=(0, 1), colormap="gray"),), south_first=True)
    inputs, truth = np.zeros((2, 8, 8)), np.ones((3, 8, 8))
    truth[:, :4] = 0  # the south
    frames = plotting.forecast_animation(
        [inputs], [truth], {"model": [1 - truth]}, display=display, title="One"
    )
    assert frames.dtype == np.uint8 and len(frames) == 5
    height, width = frames.shape[1:3]
    row = slice(height // 2 - 60, height // 2 - 40)  # north of the middle
    quarter = slice(width // 5, width // 5 + 20)
    assert np.all(frames[:2, row, quarter] == 0)
    assert np.all(frames[2:, row, quarter] == 255)
    assert not np.array_equal(frames[2], frames[3])  # the clock
    right = slice(width // 2 + 60, width // 2 + 80)
    assert np.all(frames[2:, row, right] == 0)


def test_several_channels_stand_below_each_other():
    one, two = Display((Channel(),)), Display((Channel(), Channel("b")))
    fields = [np.random.default_rng(0).random((2, 8, 16))] * 2
    heights = [
        plotting.forecast_animation(
            fields[:n], fields[:n], {"model": fields[:n]}, display=display
        ).shape[1]
        for n, display in ((1, one), (2, two))
    ]
    assert heights[1] > 1.5 * heights[0]


def test_every_frame_has_its_time_stamp():
    display = Display((Channel(),), "5 min")
    fields = [np.zeros((2, 8, 8))]
    days = np.array(["2019-06-01", "2020-07-02"], "datetime64[m]")
    first, second = (
        plotting.forecast_animation(
            fields, fields, {}, display=display, moments=day + 5 * np.arange(4)
        )
        for day in days
    )
    assert all(not np.array_equal(*pair) for pair in zip(first, second, strict=True))
    below = slice(first.shape[1] - 30, None)
    np.testing.assert_array_equal(first[:, : below.start], second[:, : below.start])
    with pytest.raises(ValueError, match=r"has 3 values; .* the 2 \+ 2 frames"):
        plotting.forecast_animation(
            fields, fields, {}, display=display, moments=days[[0, 0, 0]]
        )
