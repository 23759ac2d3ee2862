"""MovingMNIST's rules: constant speed, walls, the brightest pixel."""

import numpy as np
import pytest

from earthformer_jax.data.mnist import moving_generator
from earthformer_jax.data.mnist.moving_generator import Start

ROOM = 64 - 28


def corners(position, velocity, frames):
    return moving_generator.trajectory(
        np.array([position]), np.array([velocity]), frames, 64
    )[:, 0]


def drawn(seed, count=100, num_digits=2):
    return moving_generator.draw(np.random.default_rng(seed), count, num_digits, 64)


class TestTrajectory:
    def test_straight_in_the_open(self):
        path = corners((3.0, 20.0), (1.5, -2.0), 7)
        t = np.arange(7)[:, None]
        np.testing.assert_allclose(path, [3.0, 20.0] + t * [1.5, -2.0])

    def test_bounces_by_hand(self):
        """A digit that would leave is put on the wall, and goes back from there."""
        x = corners((30.0, 0.0), (4.0, 0.0), 6)[:, 0]
        np.testing.assert_allclose(x, [30, 34, 36, 32, 28, 24])
        y = corners((0.0, 5.0), (0.0, -3.0), 6)[:, 1]
        np.testing.assert_allclose(y, [5, 2, 0, 3, 6, 9])

    def test_never_outside_and_never_faster(self):
        for seed in range(20):
            start = drawn(seed)
            path = moving_generator.trajectory(*start[1:], 200, 64)
            assert path.min() >= 0 and path.max() <= ROOM
            step = np.abs(np.diff(path, axis=0))
            assert np.all(step <= np.abs(start.velocity) + 1e-9)

    def test_mirrored(self):
        """Mirrored starts give mirrored sequences."""
        start = drawn(1)
        path = moving_generator.trajectory(*start[1:], 50, 64)
        mirrored = moving_generator.trajectory(
            ROOM - start.position, -start.velocity, 50, 64
        )
        np.testing.assert_allclose(mirrored, ROOM - path, atol=1e-9)

    def test_arguments_are_left_alone(self):
        start = drawn(2)
        before = start.position.copy(), start.velocity.copy()
        moving_generator.trajectory(*start[1:], 50, 64)
        np.testing.assert_array_equal(start.position, before[0])
        np.testing.assert_array_equal(start.velocity, before[1])


class TestDraw:
    def test_one_speed_any_direction(self):
        velocity = np.concatenate([drawn(seed).velocity for seed in range(300)])
        speed = np.linalg.norm(velocity, axis=-1)
        np.testing.assert_allclose(speed, 0.1 * ROOM)
        angle = np.arctan2(*velocity.T)
        assert abs(np.mean(np.exp(1j * angle))) < 0.1

    def test_any_place_any_digit(self):
        starts = [drawn(seed, count=5) for seed in range(300)]
        position = np.concatenate([s.position for s in starts])
        assert position.min() >= 0 and position.max() <= ROOM
        np.testing.assert_allclose(position.mean(axis=0), ROOM / 2, atol=1.5)
        numbers = np.concatenate([s.digits for s in starts])
        np.testing.assert_array_equal(np.unique(numbers), range(5))


class TestRender:
    def test_pixels_by_hand(self):
        image = np.arange(784, dtype=np.uint8).reshape(1, 28, 28)
        frame = moving_generator.render(image, np.array([[[5.9, 30.2]]]), 64)[0]
        np.testing.assert_array_equal(frame[30:58, 5:33], image[0])
        assert frame.sum(dtype=int) == image.sum(dtype=int)

    def test_the_brightest_shows(self):
        images = np.stack([np.full((28, 28), 90), np.full((28, 28), 200)])
        images = images.astype(np.uint8)
        corners = np.array([[[0, 0], [10, 0]]])
        frame = moving_generator.render(images, corners, 64)[0]
        np.testing.assert_array_equal(frame[0, :10], 90)
        np.testing.assert_array_equal(frame[0, 10:38], 200)
        swapped = moving_generator.render(images[::-1], corners[:, ::-1], 64)[0]
        np.testing.assert_array_equal(frame, swapped)


class TestGenerate:
    def test_is_render_of_trajectory(self):
        images = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)
        start = drawn(3, count=4)
        frames = moving_generator.generate(images, start, 12, 64)
        path = moving_generator.trajectory(*start[1:], 12, 64)
        expected = moving_generator.render(images[start.digits], path, 64)
        np.testing.assert_array_equal(frames, expected)
        assert frames.dtype == np.uint8 and frames.shape == (12, 64, 64)

    def test_given_start(self):
        images = np.full((1, 28, 28), 255, np.uint8)
        start = Start(np.array([0]), np.array([[4, 6]]), np.array([[1, 0]]))
        frames = moving_generator.generate(images, start, 3, 40)
        rows, columns = np.nonzero(frames[2])
        assert (rows.min(), columns.min()) == (6, 6)

    def test_start_outside(self):
        start = Start(np.array([0]), np.array([[4.0, 37.0]]), np.zeros((1, 2)))
        with pytest.raises(ValueError, match=r"\[\[4.0, 37.0\]\].* between 0 and 36"):
            moving_generator.generate(np.zeros((1, 28, 28), np.uint8), start, 3, 64)
