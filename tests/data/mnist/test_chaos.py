"""Nearly identical starts: N-body MNIST forgets them, MovingMNIST does not."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from earthformer_jax.data.mnist import digits, moving_generator

FILE = pathlib.Path(__file__).parents[3] / "experiments" / "chaos.py"


@pytest.fixture(scope="module")
def chaos():
    spec = importlib.util.spec_from_file_location("chaos", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def images():
    return digits.load_digits("").train


@pytest.fixture(scope="module")
def nbody(chaos, images):
    return chaos.nbody(images)


@pytest.fixture(scope="module")
def moving(chaos, images):
    return chaos.moving(images)


class TestDistance:
    def test_half_a_pixel_at_the_start(self, nbody, moving):
        for pairs in (nbody, moving):
            assert pairs.distance.shape == (64, 101)
            np.testing.assert_allclose(pairs.distance[:, 0], 0.5, atol=1e-4)

    def test_nbody_diverges(self, nbody):
        """Twice as far after the data set's 20 frames, then three times every 20."""
        mean = nbody.distance.mean(axis=0)
        assert mean[19] > 1.5 * mean[0]
        assert mean[40] > 2 * mean[19]
        assert mean[60] > 10 * mean[0]
        assert np.median(nbody.distance[:, 100]) > 10 * mean[0]

    def test_growth_is_exponential_not_linear(self, chaos, images):
        """What grows in proportion to time is twice as large after twice the time."""
        near = chaos.nbody(images, frames=41, nudge=0.005)
        growth = near.distance.mean(axis=0) / 0.005
        assert growth[20] > 3
        assert growth[40] > 3 * growth[20]

    def test_moving_mnist_stays(self, moving):
        mean = moving.distance.mean(axis=0)
        assert mean.max() < 1.5 * mean[0]
        step = moving_generator.STEP * (64 - 28)
        assert moving.distance.max() < 0.5 + step

    def test_without_attraction_nbody_stays(self, chaos, images):
        pairs = chaos.nbody(images, attraction=0.0)
        assert pairs.distance.mean(axis=0).max() < 0.6

    def test_in_the_end(self, nbody, moving):
        """In the end the runs of N-body have nothing in common, on the scale of 64."""
        assert nbody.distance[:, -1].mean() > 12
        assert nbody.distance[:, -1].mean() > 20 * moving.distance[:, -1].mean()


class TestVelocities:
    """Figure 11 of the paper: the same places, other velocities."""

    def test_constant_speed_parts_in_proportion_to_time(self, chaos, images):
        """Until a digit bounces: then the second run may have bounced or not."""
        pairs = chaos.nbody(images, frames=4, attraction=0.0, change="velocity")
        apart = np.median(pairs.distance, axis=0)
        np.testing.assert_allclose(apart, 0.1 * np.arange(4), atol=1e-3)
        pairs = chaos.moving(images, frames=2, change="velocity")
        apart = np.median(pairs.distance, axis=0)
        np.testing.assert_allclose(apart, [0, 0.1], atol=1e-6)

    def test_attraction_wins_in_the_end(self, chaos, images):
        nbody, moving = (
            run(images, change="velocity").distance.mean(axis=0)
            for run in (chaos.nbody, chaos.moving)
        )
        assert nbody[0] == moving[0] == 0
        assert nbody[19] < moving[19] and nbody[-1] > 1.5 * moving[-1]


class TestFigure:
    def test_overlaid(self, chaos):
        frames = np.zeros((2, 1, 1, 4))
        frames[0, 0, 0, :2], frames[1, 0, 0, 1:3] = 1, 1
        first, both, second, none = chaos.overlaid(frames)[0, 0]
        np.testing.assert_allclose(first, chaos.FIRST)
        np.testing.assert_allclose(both, 1)
        np.testing.assert_allclose(second, chaos.SECOND)
        np.testing.assert_allclose(none, 0)

    def test_frames_are_of_the_runs(self, nbody, moving):
        for pairs in (nbody, moving):
            frames = pairs.frames(pairs.typical)
            assert frames.shape == (2, 101, 64, 64)
            assert frames.min() >= 0 and frames.max() <= 1

    def test_files(self, chaos, tmp_path, capsys):
        chaos.main([f"--out={tmp_path}"])
        width, height = Image.open(tmp_path / "chaos.png").size
        assert width > 1200 and height > 700
        numbers = json.loads((tmp_path / "chaos.json").read_text())
        assert list(numbers) == ["N-body MNIST", "MovingMNIST"]
        assert all(len(mean) == 101 for mean in numbers.values())
        assert "N-body MNIST: 0.50 pixels apart in the first" in capsys.readouterr().out
