"""N-body MNIST's rules: laws, hand-computed values and the authors' generator."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.data.mnist import nbody_generator
from earthformer_jax.data.mnist.nbody_generator import Draw, Rules
from tests import golden_files

CASES = ("official", "r2_more_pull", "r1")
MODES = tuple(nbody_generator.POWERS)

simulate = jax.jit(nbody_generator.simulate, static_argnames="rules")
video = jax.jit(nbody_generator.video, static_argnames="rules")


@functools.cache
def golden():
    return golden_files.load("x_nbody_generator")


def case(name):
    """Rules, digits, boxes and draws of a case of the reference."""
    config = json.loads(str(golden()[f"{name}/config"]))
    rules = Rules(
        frames=config["seq_len"],
        size=config["img_size"],
        canvas=config["raw_img_size"],
        every=config["raw_seq_len_multiplier"],
        mode=config["nbody_acc_mode"],
        G=config["nbody_G"],
        softening=config["nbody_softening_distance"],
        max_speed=config["max_velocity_scale"],
    )
    drawn = golden_files.group(golden(), f"{name}/replay")
    draws = [
        Draw(
            drawn["digit_indices"][i],
            *(
                np.float32(drawn[key][i])
                for key in (
                    "affine_transforms_multipliers",
                    "init_velocity_angle",
                    "init_velocity_magnitude",
                )
            ),
        )
        for i in range(len(drawn["digit_indices"]))
    ]
    return rules, draws


def random(*shape, low=0.0, high=1.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def square(side, brightness=255):
    """`[1, 28, 28]` image of a square, and its box `[1, 2]`."""
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, :side, :side] = brightness
    return image, np.full((1, 2), side)


class TestGolden:
    """Errors in pixels of the canvas, of 255, and of 1."""

    @pytest.mark.parametrize("name", CASES)
    def test_positions_at_every_step(self, name, record_property):
        rules, draws = case(name)
        images, boxes = nbody_generator.cropped(golden()["digits"])
        expected = golden()[f"{name}/output/affine_transforms_all_raw_steps"][..., 2]
        for draw, positions in zip(draws, expected, strict=True):
            box = boxes[draw.digits]
            start = nbody_generator.start(draw, box, rules)
            found = simulate(*start, box, rules=rules)
            assert found.shape == positions.shape
            np.testing.assert_allclose(found, positions, atol=5e-5)
            worst = float(np.abs(found - positions).max()) / rules.canvas
            record_property("golden difference of N-body positions", worst)

    @pytest.mark.parametrize("name", CASES)
    def test_canvas(self, name):
        rules, draws = case(name)
        images, boxes = nbody_generator.cropped(golden()["digits"])
        expected = golden()[f"{name}/output/raw_first3_kept_frames"]
        for draw, canvases in zip(draws, expected, strict=True):
            box = boxes[draw.digits]
            start = nbody_generator.start(draw, box, rules)
            positions = simulate(*start, box, rules=rules)[:: rules.every]
            for position, canvas in zip(positions, canvases, strict=False):
                found = nbody_generator.paint(
                    images[draw.digits], position, rules.canvas
                )
                np.testing.assert_allclose(found, canvas, atol=3e-3)

    @pytest.mark.parametrize("name", CASES)
    def test_frames(self, name, record_property):
        rules, draws = case(name)
        images, boxes = nbody_generator.cropped(golden()["digits"])
        expected = golden()[f"{name}/output/frames"][..., 0]
        for draw, frames in zip(draws, expected, strict=True):
            digits = draw.digits
            found = video(images[digits], boxes[digits], draw, rules=rules)
            np.testing.assert_allclose(found, frames, atol=2e-5)
            worst = float(np.abs(found - frames).max())
            record_property("golden difference of N-body frames", worst)

    def test_frames_of_the_authors_opencv(self):
        """OpenCV 4 shifts by multiples of 1/32 pixel; this does not."""
        rules, draws = case("official")
        images, boxes = nbody_generator.cropped(golden()["digits"])
        expected = golden()["official_opencv4/output/frames"][..., 0]
        for draw, frames in zip(draws, expected, strict=True):
            digits = draw.digits
            found = video(images[digits], boxes[digits], draw, rules=rules)
            np.testing.assert_allclose(found, frames, atol=0.01)

    @pytest.mark.parametrize("mode", MODES)
    def test_acceleration(self, mode):
        position = golden()[f"acceleration/{mode}/input/pos"]
        expected = golden()[f"acceleration/{mode}/output/acc"]
        found = nbody_generator.acceleration(position, Rules(mode=mode))
        np.testing.assert_allclose(found, expected, atol=1e-6 * abs(expected).max())

    def test_bicubic(self):
        found = nbody_generator.shrink(golden()["bicubic/input"], 8)
        np.testing.assert_allclose(found, golden()["bicubic/output"], atol=1e-4)


class TestAcceleration:
    @pytest.mark.parametrize("mode", MODES)
    def test_two_by_hand(self, mode):
        """3-4-5: r = sqrt(30^2 + 40^2 + 10^2), towards the other one."""
        rules = Rules(mode=mode)
        found = nbody_generator.acceleration(jnp.array([[0.0, 0], [30, 40]]), rules)
        power = nbody_generator.POWERS[mode]
        pull = 0.05 * np.array([30, 40]) / np.sqrt(2600) ** power
        np.testing.assert_allclose(found, [pull, -pull], rtol=1e-6)

    @pytest.mark.parametrize("mode", MODES)
    def test_forces_cancel(self, mode):
        found = nbody_generator.acceleration(random(5, 2, high=100), Rules(mode=mode))
        np.testing.assert_allclose(found.sum(axis=0), 0, atol=1e-7)

    @pytest.mark.parametrize("mode", MODES)
    def test_place_and_order_do_not_matter(self, mode):
        rules, position = Rules(mode=mode), random(4, 2, high=100)
        found = nbody_generator.acceleration(position, rules)
        moved = nbody_generator.acceleration(position + 17, rules)
        np.testing.assert_allclose(moved, found, rtol=1e-4)
        order = np.array([2, 0, 3, 1])
        np.testing.assert_allclose(
            nbody_generator.acceleration(position[order], rules),
            found[order],
            rtol=1e-5,
        )

    def test_alone(self):
        found = nbody_generator.acceleration(jnp.array([[3.0, 4.0]]), Rules())
        np.testing.assert_array_equal(found, np.zeros((1, 2)))


class TestSimulate:
    def test_straight_without_attraction(self):
        rules = Rules(G=0.0, frames=4, every=2)
        position, velocity = np.array([[50.0, 60.0]]), np.array([[1.0, -0.5]])
        found = simulate(position, velocity, np.array([[12, 20]]), rules=rules)
        steps = np.arange(8)[:, None, None]
        np.testing.assert_allclose(found, position + steps * velocity)

    def test_bounce_by_hand(self):
        """The centre of a digit 12 wide is kept in [10, 118], the corner 6 less."""
        rules = Rules(G=0.0, frames=6, every=1)
        box = np.array([[12, 20]])
        position, velocity = np.array([[109.0, 54.0]]), np.array([[1.5, 0.0]])
        found = simulate(position, velocity, box, rules=rules)[:, 0, 0]
        np.testing.assert_allclose(found, [109, 110.5, 112, 112, 110.5, 109])

    def test_speed_is_clipped(self):
        rules = Rules(G=0.0, frames=3, every=1)
        found = simulate(
            np.array([[50.0, 50.0]]),
            np.array([[3.0, -9.0]]),
            np.ones((1, 2)),
            rules=rules,
        )
        np.testing.assert_allclose(np.diff(found[:, 0], axis=0), [[2, -2], [2, -2]])

    def test_centres_stay_inside(self):
        rules, box = Rules(), np.array([[14, 20], [8, 19], [27, 28]])
        for seed in range(5):
            position = random(3, 2, seed=seed) * (128 - box)
            velocity = random(3, 2, low=-2, high=2, seed=seed)
            centres = simulate(position, velocity, box, rules=rules)[1:] + box / 2
            assert centres.min() >= 10 - 1e-4 and centres.max() <= 118 + 1e-4

    def test_momentum_is_kept_away_from_the_edge(self):
        rules, box = Rules(frames=4), np.full((3, 2), 16)
        position = random(3, 2, low=40, high=70)
        velocity = random(3, 2, low=-0.3, high=0.3)
        path = simulate(position, velocity, box, rules=rules)
        steps = np.diff(path, axis=0).sum(axis=1)
        np.testing.assert_allclose(steps, steps[:1].repeat(19, 0), atol=1e-4)


class TestPaint:
    def test_whole_pixels(self):
        image = random(1, 28, 28, high=255)
        found = nbody_generator.paint(image, np.array([[31.0, 7.0]]), 128)
        np.testing.assert_allclose(found[7:35, 31:59], image[0], rtol=1e-6)
        assert found.sum() == pytest.approx(image.sum(), rel=1e-5)

    def test_between_pixels_by_hand(self):
        image = np.zeros((1, 28, 28), np.float32)
        image[0, 0, 0] = 100
        found = nbody_generator.paint(image, np.array([[5.25, 9.5]]), 32)
        np.testing.assert_allclose(found[9:11, 5:7], [[37.5, 12.5], [37.5, 12.5]])
        assert np.count_nonzero(found) == 4

    def test_sum_is_kept_between_pixels(self):
        image = random(1, 28, 28)
        found = nbody_generator.paint(image, np.array([[31.3, 7.8]]), 128)
        assert found.sum() == pytest.approx(image.sum(), rel=1e-5)

    def test_what_is_outside_is_cut_off(self):
        image = random(1, 28, 28)
        found = nbody_generator.paint(image, np.array([[-4.0, 120.0]]), 128)
        np.testing.assert_allclose(found[120:, :24], image[0, :8, 4:], rtol=1e-6)
        assert np.count_nonzero(found) == 8 * 24

    def test_the_brightest_shows(self):
        images = np.stack([np.full((28, 28), 90), np.full((28, 28), 200)])
        position = np.array([[10.0, 10.0], [20.0, 10.0]])
        found = nbody_generator.paint(images, position, 64)
        np.testing.assert_allclose(found[10, 10:20], 90)
        np.testing.assert_allclose(found[10, 20:48], 200)


class TestShrink:
    @pytest.mark.parametrize("size", [16, 20, 32, 48])
    def test_constant_stays(self, size):
        found = nbody_generator.shrink(np.full((2, 32, 32), 7, np.float32), size)
        np.testing.assert_allclose(found, np.full((2, size, size), 7), rtol=1e-6)

    def test_same_size_is_the_same(self):
        x = random(3, 16, 16)
        np.testing.assert_allclose(nbody_generator.shrink(x, 16), x, atol=1e-6)

    def test_weights_by_hand(self):
        """Half-way between pixels the kernel of a = -3/4 is (-3, 19, 19, -3) / 32."""
        weights = nbody_generator.bicubic_weights(8, 4)
        np.testing.assert_allclose(
            weights[1], np.array([0, -3, 19, 19, -3, 0, 0, 0]) / 32, atol=1e-7
        )
        np.testing.assert_allclose(weights[0, :3], np.array([16, 19, -3]) / 32)

    def test_a_ramp_stays_a_ramp_inside(self):
        ramp = np.broadcast_to(np.arange(32, dtype=np.float32), (32, 32))
        found = nbody_generator.shrink(ramp, 16)
        np.testing.assert_allclose(
            found[5, 1:-1], 2 * np.arange(1, 15) + 0.5, rtol=1e-5
        )


class TestCropped:
    def test_by_hand(self):
        image = np.zeros((2, 28, 28), np.uint8)
        image[0, 4:9, 10:13] = 3
        image[1, 27, 0] = 255
        moved, boxes = nbody_generator.cropped(image)
        np.testing.assert_array_equal(boxes, [[3, 5], [1, 1]])
        np.testing.assert_array_equal(moved[0, :5, :3], 3)
        assert moved[0].sum() == 45 and moved[1, 0, 0] == 255

    def test_nothing_is_lost(self):
        images = golden()["digits"]
        moved, boxes = nbody_generator.cropped(images)
        np.testing.assert_array_equal(moved.sum((1, 2)), images.sum((1, 2)))
        assert moved[:, 0].any(axis=1).all() and moved[:, :, 0].any(axis=1).all()
        again = nbody_generator.cropped(moved)
        np.testing.assert_array_equal(again[0], moved)
        np.testing.assert_array_equal(again[1], boxes)

    def test_empty_image(self):
        moved, boxes = nbody_generator.cropped(np.zeros((1, 28, 28), np.uint8))
        np.testing.assert_array_equal(boxes, [[28, 28]])
        assert not moved.any()


class TestDraw:
    def test_ranges(self):
        rules = Rules(num_digits=4)
        keys = jax.random.split(jax.random.key(0), 500)
        draws = jax.vmap(lambda key: nbody_generator.draw(key, 7, rules))(keys)
        np.testing.assert_array_equal(np.unique(draws.digits), range(7))
        assert draws.digits.shape == (500, 4)
        for values, high in ((draws.place, 1), (draws.angle, 2 * np.pi)):
            assert values.min() >= 0 and values.max() <= high
            assert values.mean() == pytest.approx(high / 2, rel=0.05)
        assert draws.speed.max() <= 2
        assert draws.speed.mean() == pytest.approx(1, rel=0.05)

    def test_start_by_hand(self):
        draw = Draw(
            np.array([0]),
            np.array([[0.5, 0.25]]),
            np.array([np.pi / 2]),
            np.array([2.0]),
        )
        position, velocity = nbody_generator.start(draw, np.array([[14, 20]]), Rules())
        np.testing.assert_allclose(position, [[57, 27]])
        np.testing.assert_allclose(velocity, [[0, 2]], atol=1e-6)

    def test_digits_are_whole_at_the_start(self):
        """The bounding box is on the canvas, wherever it is placed."""
        image, box = square(20)
        for place in (0.0, 1.0):
            draw = Draw(np.array([0]), np.full((1, 2), place), np.zeros(1), np.zeros(1))
            position, _ = nbody_generator.start(draw, box, Rules())
            canvas = nbody_generator.paint(image, position, 128)
            assert np.count_nonzero(canvas) == 400


class TestVideo:
    def test_mapped_is_one_by_one(self):
        rules = Rules(frames=4, size=32)
        images, boxes = nbody_generator.cropped(golden()["digits"])
        keys = jax.random.split(jax.random.key(1), 3)

        @jax.jit
        @jax.vmap
        def videos(key):
            draw = nbody_generator.draw(key, len(images), rules)
            chosen = jnp.asarray(images)[draw.digits], jnp.asarray(boxes)[draw.digits]
            return nbody_generator.video(*chosen, draw, rules)

        together = videos(keys)
        assert together.shape == (3, 4, 32, 32)
        for key, expected in zip(keys, together, strict=True):
            draw = nbody_generator.draw(key, len(images), rules)
            found = video(images[draw.digits], boxes[draw.digits], draw, rules=rules)
            np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_range(self):
        """Bicubic overshoot is cut off."""
        image, box = square(20)
        draw = Draw(np.array([0]), np.full((1, 2), 0.3), np.zeros(1), np.ones(1))
        frames = video(image, box, draw, rules=Rules(frames=3, num_digits=1))
        assert frames.min() == 0 and frames.max() == 1
        assert frames.dtype == jnp.float32
