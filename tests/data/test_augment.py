"""Random flips, turns and crops treat all fields of an example alike."""

import numpy as np
import pytest

from earthformer_jax.data.augment import Augment, center_crop


def example(height=4, width=6):
    field = np.arange(height * width, dtype=np.float32).reshape(height, width)
    targets = np.stack([field, field + 100])[..., None]
    return {
        "inputs": np.stack([field] * 3)[..., None],
        "targets": targets,
        "observed": targets > 103,
        "time": np.arange(5, dtype=np.int32),
    }


def draw(augment, seed=0, **size):
    return augment(example(**size), np.random.default_rng(seed))


class TestAugment:
    def test_nothing_is_the_identity(self):
        for name, value in draw(Augment()).items():
            np.testing.assert_array_equal(value, example()[name])

    @pytest.mark.parametrize(
        "augment",
        [
            Augment(flip_height=True),
            Augment(flip_width=True),
            Augment(flip_height=True, flip_width=True, crop=(3, 2)),
            Augment(rotate=True, crop=(4, 4)),
        ],
    )
    def test_all_fields_change_alike(self, augment):
        seen = set()
        for seed in range(20):
            changed = draw(augment, seed)
            first = changed["inputs"][0]
            np.testing.assert_array_equal(changed["targets"][1], first + 100)
            np.testing.assert_array_equal(changed["observed"], changed["targets"] > 103)
            np.testing.assert_array_equal(changed["time"], np.arange(5))
            assert changed["inputs"].flags.c_contiguous
            seen.add(first.tobytes())
        assert len(seen) > 1

    def test_half_of_the_examples_are_flipped(self):
        plain = example()["inputs"]
        flipped = [
            draw(Augment(flip_width=True), seed)["inputs"][0, 0, 0, 0] != plain[0, 0, 0]
            for seed in range(200)
        ]
        assert 70 < sum(flipped) < 130

    def test_crops_reach_every_corner(self):
        corners = {
            float(draw(Augment(crop=(3, 5)), seed)["inputs"][0, 0, 0, 0])
            for seed in range(60)
        }
        assert corners == {0.0, 1.0, 6.0, 7.0}

    def test_turning_needs_a_square(self):
        with pytest.raises(ValueError, match="fields of 4 x 6 cannot be turned"):
            draw(Augment(rotate=True))

    @pytest.mark.parametrize("crop", [(5, 5), (0, 2), (3,)])
    def test_impossible_crops(self, crop):
        with pytest.raises(ValueError, match="crop=.*at most .4, 6."):
            draw(Augment(crop=crop))


def test_center_crop():
    middle = center_crop(example(), (2, 2))
    np.testing.assert_array_equal(middle["inputs"][0, ..., 0], [[8, 9], [14, 15]])
    assert middle["targets"].shape == (2, 2, 2, 1)
