"""Samples of a data set: which are chosen, what is printed, what is drawn."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from earthformer_jax import plotting
from earthformer_jax.data.augment import Augment
from earthformer_jax.data.dataset import Channel, Data, Display
from earthformer_jax.look import show

SHAPE = (6, 8)
CHANNELS = (
    Channel("T", "K", scale=10.0, offset=280.0, limits=(270.0, 290.0)),
    Channel("P", "mm"),
)


@dataclasses.dataclass(frozen=True)
class Examples:
    """Example i: three channels of inputs and two of targets around i / 10."""

    size: int

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        fields = np.zeros((5, *SHAPE, 3), np.float32) + index / 10
        fields[..., 1] -= 1
        fields[:, -1, -1, 0] += np.arange(5, dtype=np.float32) * index / 100
        observed = np.ones((2, *SHAPE, 2), bool)
        observed[:, 0, 0] = False
        targets = np.where(observed, fields[3:, ..., :2], np.float32(99))
        hours = 60 * np.arange(5, dtype=np.int32)
        return {
            "inputs": fields[:3],
            "targets": targets,
            "observed": observed,
            "time": hours + 24 * 60 * np.int32(index),
            "station": np.int32(index),
        }


def data(**changes) -> Data:
    fields = dict(
        name="made",
        description="made up (by a test); two channels",
        train=Examples(11),
        validation=Examples(3),
        test=Examples(0),
        loss_weights=np.ones((1, 1, 1, 1), np.float32),
        display=Display(CHANNELS, "hour", south_first=True),
        augment=Augment(flip_height=True, flip_width=True),
    )
    return Data(**fields | changes)


class TestChoose:
    def test_evenly_apart_with_both_ends(self):
        samples = show.choose(data(), "train", 6)
        assert samples.indices == (0, 2, 4, 6, 8, 10)
        assert [int(x["station"]) for x in samples.examples] == [0, 2, 4, 6, 8, 10]
        assert samples.name == "made-train"

    def test_all_of_a_small_split(self):
        assert show.choose(data(), "validation", 6).indices == (0, 1, 2)
        assert show.choose(data(), "validation", 1).indices == (0,)

    def test_augmented_as_the_seed_says(self):
        first, again, other = (
            show.choose(data(), "train", 4, augmented=True, seed=seed).examples
            for seed in (1, 1, 2)
        )
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a["targets"], b["targets"])
        masks = [np.stack([x["observed"] for x in part]) for part in (first, other)]
        assert np.all(np.sum(~masks[0], axis=(1, 2, 3, 4)) == 4)  # one corner of each
        assert not np.array_equal(*masks)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (dict(split="test"), "the test split of 'made' is empty"),
            (dict(split="train", count=0), "--count=0: expected 1 or more"),
            (dict(split="validation", augmented=True), "use --split=train"),
        ],
    )
    def test_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            show.choose(data(), **arguments)

    def test_refused_without_augmentation(self):
        with pytest.raises(
            ValueError, match="the examples of 'made' are not augmented"
        ):
            show.choose(data(augment=None), "train", augmented=True)


class TestDescribe:
    def test_says_what_there_is(self):
        text = show.describe(show.choose(data(), "train", 2))
        for line in (
            "data      made: made up (by a test); two channels",
            "examples  train 11, validation 3, test 0",
            "shown     train 0 10",
            "inputs    3 x 6 x 8 x 3 (time x height x width x channel) float32",
            "targets   2 x 6 x 8 x 2 (time x height x width x channel) float32",
            "targets   T: 0 .. 1.4, mean 0.5037, that is 280 .. 294 K",
            "targets   P: -1 .. 0, mean -0.5",
            "unknown   2.08 % of the target values of these samples",
            "time      10: 1970-01-11 00:00 to 1970-01-11 04:00 UTC",
            "also      station []",
        ):
            assert line in text.splitlines()

    def test_what_never_counts(self):
        weights = np.ones((1, *SHAPE, 1), np.float32)
        weights[:, :3] = 0
        text = show.describe(show.choose(data(loss_weights=weights), "train"))
        assert "; 50 % of the cells never count" in text

    def test_nothing_observed(self):
        class Nothing(Examples):
            def __getitem__(self, index):
                example = super().__getitem__(index)
                return example | {"observed": np.zeros_like(example["observed"])}

        text = show.describe(show.choose(data(train=Nothing(2)), "train"))
        assert "targets   T: nothing observed" in text
        assert "unknown   100 %" in text


class TestAnimation:
    def test_a_row_for_each_channel_and_a_column_for_each_sample(self):
        samples = show.choose(data(), "train", 2)
        frames = show.animation(samples)
        assert frames.dtype == np.uint8
        times = show.MOST_PIXELS // 8
        cell = np.array(SHAPE) * times + 2 * show.BORDER + show.GAP
        assert frames.shape == (5, 2 * cell[0], 2 * cell[1], 3)
        inputs, targets = frames[:3, 0, 0], frames[3:, 0, 0]
        assert len(np.unique(inputs, axis=0)) == len(np.unique(targets, axis=0)) == 1
        assert np.any(inputs[0] != targets[0])

    def test_colours_are_shared_and_the_south_is_below(self):
        samples = show.choose(data(), "train", 2)
        frames = show.animation(samples)
        b, times = show.BORDER, show.MOST_PIXELS // 8
        height, width = SHAPE[0] * times, SHAPE[1] * times
        right = b + width + b + show.GAP + b  # where the second sample begins
        expected = plotting.render_frames(
            np.array([0.0, 1.0])[:, None, None], CHANNELS[0], size=1
        )
        np.testing.assert_array_equal(frames[0, b, b], expected[0, 0, 0])
        np.testing.assert_array_equal(frames[0, b, right], expected[1, 0, 0])
        unknown = frames[3, b + height - 1, b]  # row 0 of the field is drawn last
        assert np.ptp(unknown) == 0
        assert np.any(unknown != frames[3, b, b])

    def test_cells_that_never_count_are_grey(self):
        weights = np.ones((1, *SHAPE, 1), np.float32)
        weights[0, 2, 3] = 0
        frames = show.animation(show.choose(data(loss_weights=weights), "train", 1))
        pixels = frames[0, show.BORDER :, show.BORDER :]
        times = show.MOST_PIXELS // 8
        cell = pixels[(SHAPE[0] - 1 - 2) * times, 3 * times]
        assert np.ptp(cell) == 0

    def test_large_fields_are_thinned_out(self):
        class Large:
            def __len__(self):
                return 1

            def __getitem__(self, index):
                return {
                    k: np.zeros((1, 600, 300, 1), np.float32) for k in show.KNOWN[:2]
                }

        made = data(train=Large(), display=Display((CHANNELS[1],)))
        frames = show.animation(show.choose(made, "train"))
        edge = 2 * show.BORDER + show.GAP
        assert frames.shape[1:3] == (200 + edge, 100 + edge)


def test_files(tmp_path):
    samples = show.choose(data(), "train", 3)
    sheet, film = show.write(samples, tmp_path / "new")
    assert (sheet.name, film.name) == ("made-train.png", "made-train.gif")
    with Image.open(sheet) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    with Image.open(film) as image:
        assert image.n_frames == 5
        assert image.size == show.animation(samples).shape[2:0:-1]
    assert sorted(p.name for p in film.parent.iterdir()) == [film.name, sheet.name]
