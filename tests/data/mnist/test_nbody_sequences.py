"""N-body MNIST in NumPy: the authors' frames, the JAX generator, and many at once."""

import jax
import numpy as np
import pytest

from earthformer_jax.data.mnist import nbody_generator, nbody_sequences
from earthformer_jax.data.mnist.nbody_rules import Draw, Rules, cropped
from tests.data.mnist.test_nbody_generator import CASES, case, golden, random


def together(name):
    """Rules, digits, boxes and stacked draws of a case of the reference."""
    rules, draws = case(name)
    images, boxes = cropped(golden()["digits"])
    draw = Draw(*(np.stack(x) for x in zip(*draws, strict=True)))
    return rules, images[draw.digits], boxes[draw.digits], draw


def canvas_of(images, position, side=128):
    edge = nbody_sequences.EDGE
    out = np.zeros((1, side + 2 * edge, side + 2 * edge), np.float32)
    nbody_sequences.paint(images, np.asarray(position, np.float32)[None], out)
    return out, out[0, edge : edge + side, edge : edge + side]


class TestGolden:
    """The tolerances of `test_nbody_generator`."""

    @pytest.mark.parametrize("name", CASES)
    def test_positions(self, name):
        rules, _, boxes, draw = together(name)
        expected = golden()[f"{name}/output/affine_transforms_all_raw_steps"][..., 2]
        start = nbody_sequences.start(draw, boxes, rules)
        found = nbody_sequences.simulate(*start, boxes, rules)
        expected = np.moveaxis(expected[:, :: rules.every], 0, 1)
        np.testing.assert_allclose(found, expected, atol=5e-5)

    @pytest.mark.parametrize("name", CASES)
    def test_frames(self, name):
        rules, images, boxes, draw = together(name)
        found = nbody_sequences.video(images, boxes, draw, rules)
        expected = golden()[f"{name}/output/frames"][..., 0]
        np.testing.assert_allclose(found, expected, atol=2e-5)


class TestLikeTheGenerator:
    @pytest.mark.parametrize("position", [(31.3, 7.8), (-4.0, 120.5), (-28.0, 128.0)])
    def test_paint(self, position):
        image = random(1, 28, 28, high=255)
        out, found = canvas_of(image, [position])
        expected = nbody_generator.paint(image, np.array([position]), 128)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        nbody_sequences.erase(image, np.array([[position]]), out)
        assert not out.any()

    @pytest.mark.parametrize(("old", "new"), [(128, 64), (48, 16), (64, 40), (32, 32)])
    def test_shrink(self, old, new):
        x = random(2, old, old)
        found = nbody_sequences.shrink(x, new)
        np.testing.assert_allclose(found, nbody_generator.shrink(x, new), atol=2e-6)

    @pytest.mark.parametrize("mode", ["r0", "r1", "r2"])
    def test_draws_and_frames(self, mode):
        rules = Rules(num_digits=2, frames=3, size=24, canvas=60, every=2, mode=mode)
        images = golden()["digits"]
        draws = nbody_sequences.RandomDraws(9, "validation", 100, len(images), rules)
        sources = nbody_sequences.Sequences(draws, images, rules, 1)
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(9), 1), 77)
        expected = nbody_generator.draw(key, len(images), rules)
        for found, wanted in zip(draws.at(np.array([77])), expected, strict=True):
            np.testing.assert_array_equal(found[0], wanted)
        chosen = cropped(images[np.asarray(expected.digits)])
        frames = nbody_generator.video(*chosen, expected, rules)
        found = sources[77]
        found = np.concatenate([found["inputs"], found["targets"]])[..., 0]
        np.testing.assert_allclose(found, frames, atol=1e-5)


def test_many_are_those_one_by_one():
    rules = Rules(frames=4, size=32, canvas=64)
    images = golden()["digits"]
    draws = nbody_sequences.RandomDraws(0, "train", 50, len(images), rules)
    sequences = nbody_sequences.Sequences(draws, images, rules, 2)
    indices = [3, 49, 3, 0, 17, 8, 21]
    batch = sequences.batch(indices)
    for row, index in enumerate(indices):
        for name, values in sequences[index].items():
            np.testing.assert_array_equal(batch[name][row], values)
