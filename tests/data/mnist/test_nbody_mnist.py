"""N-body MNIST from each of its sources, and against the authors' own sequences."""

import pickle

import jax
import numpy as np
import pytest
from scipy import ndimage

from earthformer_jax import data
from earthformer_jax.data import pipeline
from earthformer_jax.data.mnist import digits, nbody_generator, nbody_mnist
from earthformer_jax.settings import settings_from
from tests import golden_files
from tests.data import tfds_folder

LENGTHS = dict(in_len=2, out_len=3)
SMALL = dict(train=7, validation=4, test=5, size=32) | LENGTHS


def load(seed=0, **settings):
    return data.load({"name": "nbody_mnist"} | settings, seed)


def frames_of(example):
    return np.concatenate([example["inputs"], example["targets"]])[..., 0]


@pytest.fixture(scope="module")
def reference():
    return golden_files.load("x_nbody_generator")


@pytest.fixture(scope="module")
def reference_digits(reference):
    return digits.Digits(reference["digits"], training=12, description="12 digits")


@pytest.fixture
def with_digits(monkeypatch, reference_digits):
    monkeypatch.setattr(nbody_mnist, "load_digits", lambda path: reference_digits)


def write_draws(folder, reference, **changes):
    """The authors' three files; those of test are the reference's main case.

    The others begin in other directions, so that no sequence comes twice.
    """
    drawn = golden_files.group(reference, "official/replay")
    for split, name in nbody_mnist.FILES.items():
        turn = 0.1 * ("test", "validation", "train").index(split)
        turned = {"init_velocity_angle": drawn["init_velocity_angle"] + turn}
        written = drawn | turned | changes
        written = {name: x for name, x in written.items() if x is not None}
        np.savez(folder / name, **written)
    return dict(path=str(folder), digits="MNIST")


@pytest.fixture(scope="module")
def every_origin(tmp_path_factory, reference, reference_digits):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nbody_mnist, "load_digits", lambda path: reference_digits)
        drawn = write_draws(tmp_path_factory.mktemp("draws"), reference)
        from_draws = load(**drawn, **LENGTHS)
    frames = np.random.default_rng(0).integers(0, 256, (6, 20, 64, 64, 1), np.uint8)
    folder = tfds_folder.write(
        tmp_path_factory.mktemp("tfds") / "nbody_mnist" / "1.0.0",
        "nbody_mnist",
        "frames",
        tfds_folder.tensor,
        {"train": frames[:3], "validation": frames[3:4], "test": frames[4:]},
        shuffled=False,
    )
    return {
        "generated": load(**SMALL),
        "draws": from_draws,
        "tfds": load(path=str(folder), **LENGTHS),
    }


@pytest.fixture(params=["generated", "draws", "tfds"])
def dataset(request, every_origin):
    return every_origin[request.param]


class TestEveryOrigin:
    def test_examples(self, dataset):
        for source in (dataset.data.train, dataset.data.validation, dataset.data.test):
            example = source[len(source) - 1]
            size = example["inputs"].shape[1]
            assert example["inputs"].shape == (2, size, size, 1)
            assert example["targets"].shape == (3, size, size, 1)
            for values in example.values():
                assert values.dtype == np.float32
                assert 0 <= values.min() and values.max() <= 1

    def test_an_example_is_a_function_of_its_number(self, dataset):
        again = pickle.loads(pickle.dumps(dataset.data.train))
        for index in (1, 0):
            for name, values in dataset.data.train[index].items():
                np.testing.assert_array_equal(values, again[index][name])

    def test_scores(self, dataset):
        batch = next(iter(pipeline.evaluation_batches(dataset.data.test, 2)))
        metric = dataset.task.metric
        forecast = dataset.task.references["persistence"](batch)
        scores = metric.compute(metric.update(metric.init(), forecast, batch))
        error = batch["inputs"][:, -1:] - batch["targets"]
        assert scores["mse"] == pytest.approx((error**2).sum() / (2 * 3), rel=1e-5)
        assert dataset.task.mse_units == "sum over the pixels of a frame"

    def test_look_and_description(self, dataset):
        (channel,) = dataset.data.display.channels
        assert (channel.colormap, channel.limits) == ("gray", (0.0, 1.0))
        assert "\n" not in dataset.data.description
        assert "2 -> 3 frames" in dataset.data.description
        assert f"train {len(dataset.data.train)}," in dataset.data.description


class TestGenerated:
    def test_sizes_of_the_paper(self):
        dataset = load()
        sizes = (
            len(dataset.data.train),
            len(dataset.data.validation),
            len(dataset.data.test),
        )
        assert sizes == (20_000, 1000, 1000)
        assert dataset.data.train[19_999]["inputs"].shape == (10, 64, 64, 1)
        assert "the first 1,500 of scikit-learn's embedded" in dataset.data.description

    def test_is_the_generator(self, every_origin):
        """Example i by hand, from the key of (seed, split, i)."""
        rules = settings_from(nbody_mnist.Settings, SMALL, "").rules
        images = digits.load_digits("").train
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 2), 4)
        draw = nbody_generator.draw(key, len(images), rules)
        chosen = nbody_generator.cropped(images[np.asarray(draw.digits)])
        expected = nbody_generator.video(*chosen, draw, rules)
        found = frames_of(every_origin["generated"].data.test[4])
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_all_are_different(self, every_origin):
        dataset = every_origin["generated"]
        splits = (
            dataset.data.train,
            dataset.data.validation,
            dataset.data.test,
            load(1, **SMALL).data.train,
        )
        whole = [frames_of(s[i]).tobytes() for s in splits for i in range(len(s))]
        assert len(set(whole)) == len(whole) == 23

    def test_number_of_sequences_changes_none(self, every_origin):
        many = load(**SMALL | {"train": 1000})
        np.testing.assert_array_equal(
            frames_of(many.data.train[5]),
            frames_of(every_origin["generated"].data.train[5]),
        )

    def test_settings_reach_the_generator(self):
        settings = settings_from(
            nbody_mnist.Settings,
            dict(num_digits=5, size=32, canvas=64, every=2, mode="r2", G=1, in_len=3),
            "",
        )
        assert settings.rules == nbody_generator.Rules(
            num_digits=5, frames=13, size=32, canvas=64, every=2, mode="r2", G=1.0
        )

    @pytest.mark.parametrize("index", [-1, 7])
    def test_no_such_sequence(self, every_origin, index):
        with pytest.raises(IndexError, match=f"sequence {index} of 7"):
            every_origin["generated"].data.train[index]


class TestDraws:
    def test_the_authors_frames(self, tmp_path, reference, with_digits):
        dataset = load(**write_draws(tmp_path, reference))
        assert [len(s) for s in (dataset.data.train, dataset.data.validation)] == [2, 2]
        for index, expected in enumerate(reference["official/output/frames"]):
            found = frames_of(dataset.data.test[index])
            np.testing.assert_allclose(found, expected[..., 0], atol=2e-5)
        assert "12 digits" in dataset.data.description

    def test_one_of_the_files(self, tmp_path, reference, with_digits):
        drawn = write_draws(tmp_path, reference)
        drawn["path"] += "/nbody_val.npz"
        assert len(load(**drawn).data.test) == 2

    def test_forecasts_begin_from_those_of_the_test(
        self, tmp_path, reference, with_digits
    ):
        config = write_draws(tmp_path, reference) | {"name": "nbody_mnist"} | LENGTHS
        dataset = data.load(config).data
        assert dataset.state is not None
        (tmp_path / "nbody_train.npz").unlink()
        found = data.beginnings(config, dataset.state())
        last = dataset.test[len(dataset.test) - 1]
        frames = np.concatenate([last[x] for x in ("inputs", "targets")])
        start = -LENGTHS["in_len"]
        np.testing.assert_array_equal(found.windows[0]["inputs"], frames[start:])

    def test_without_digits(self, tmp_path, reference):
        drawn = write_draws(tmp_path, reference)
        with pytest.raises(ValueError, match="`digits` is not set; set it to"):
            load(path=drawn["path"])

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (dict(appearance_mult=np.array([1, 0.5])), "appearance_mult other than 1"),
            (
                dict(scale_variation=np.full((2, 3), 1.1)),
                "scale_variation other than 1",
            ),
            (
                dict(base_rotation_angle=np.ones((2, 3))),
                "base_rotation_angle other tha",
            ),
            (
                dict(random_acceleration_magnitude=np.ones((2, 3))),
                "random_acceleration_magnitude other than 0",
            ),
            (dict(distractor_seeds=np.ones((2, 100, 4, 5))), "has distractors"),
            (
                dict(digit_indices=None),
                "has no digit_indices; it contains appearance_mult",
            ),
            (
                dict(init_velocity_angle=np.zeros((2, 2))),
                r"init_velocity_angle of shape \(2, 2\) but",
            ),
            (
                dict(affine_transforms_multipliers=np.zeros((2, 3))),
                "expected .sequences, digits. with 2 numbers each",
            ),
            (
                dict(digit_indices=np.full((2, 3), 12)),
                "refers to digit 12, but .* has 12 tr",
            ),
            (
                dict(digit_indices=np.zeros((0, 3), int)),
                r"digit_indices of shape \(0, 3",
            ),
        ],
    )
    def test_other_draws(self, tmp_path, reference, with_digits, changes, message):
        with pytest.raises(ValueError, match=message):
            load(**write_draws(tmp_path, reference, **changes))

    def test_number_of_digits(self, tmp_path, reference, with_digits):
        drawn = write_draws(tmp_path, reference)
        with pytest.raises(ValueError, match="num_digits=2, but .* have 3"):
            load(**drawn, num_digits=2)

    def test_missing_file(self, tmp_path, reference, with_digits):
        drawn = write_draws(tmp_path, reference)
        (tmp_path / "nbody_val.npz").unlink()
        with pytest.raises(
            FileNotFoundError, match="contains no nbody_val.npz; expected"
        ):
            load(**drawn)

    def test_truncated(self, tmp_path, reference, with_digits):
        drawn = write_draws(tmp_path, reference)
        path = tmp_path / "nbody_test.npz"
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(ValueError, match="nbody_test.npz is not a complete .npz"):
            load(**drawn)


class TestErrors:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (dict(g=0.1), "`g` is not a setting"),
            (dict(mode="r3"), "mode='r3': expected 'r0' or 'r1' or 'r2'"),
            (dict(size=256), "size=256 is larger than canvas"),
            (dict(size=8), "size=8: expected a whole number of at least 16"),
            (dict(canvas=40), "canvas=40: expected a whole number of at least 48"),
            (dict(every=0), "every=0: expected a whole number of at least 1"),
            (dict(softening=0.0), "softening=0.0: expected a number greater than 0"),
            (dict(max_speed=-1.0), "max_speed=-1.0: expected a number greater than 0"),
            (dict(G=float("nan")), "G=nan: expected a number that is finite"),
            (dict(in_len=0), "in_len=0: expected a whole number of at least 1"),
            (dict(train=0), "train=0: expected a whole number of at least 1"),
        ],
    )
    def test_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            load(**settings)

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="path=.* does not exist"):
            load(path=str(tmp_path / "nbody"))

    def test_prepared_with_fewer_frames(self, tmp_path):
        folder = tfds_folder.write(
            tmp_path / "1.0.0",
            "nbody_mnist",
            "frames",
            tfds_folder.tensor,
            {"train": np.zeros((2, 12, 16, 16, 1), np.uint8)},
        )
        with pytest.raises(ValueError, match="need 20 frames; the sequences of .* 12"):
            load(path=str(folder))


class TestTheAuthorsSequences:
    """Statistics of the four sequences that the authors publish."""

    @pytest.fixture(scope="class")
    @staticmethod
    def shown():
        names = ("mm_dis01_seq0", "mm_dis01_seq1")
        names += ("nbody_r0_dis02_seq0", "nbody_r0_dis02_seq1")
        files = (golden_files.shared_file("data", "video", f"{n}.npy") for n in names)
        return {n: np.load(f)[0] for n, f in zip(names, files, strict=True)}

    def test_ours_look_like_theirs(self, shown):
        mnist = golden_files.shared_file("data", "mnist")
        dataset = load(digits=str(mnist), train=100, validation=1, test=1)
        ours = np.stack([frames_of(dataset.data.train[i]) for i in range(100)])
        theirs = np.stack([x for n, x in shown.items() if n.startswith("nbody")])
        assert ours.shape[1:] == theirs.shape[1:] == (20, 64, 64)
        assert theirs.min() == ours.min() == 0 and theirs.max() == ours.max() == 1
        # Theirs are three digits, the same in all; ours vary with the digits drawn.
        for statistic in (np.mean, lambda x, axis: np.mean(x > 0.1, axis=axis)):
            each = statistic(ours, axis=(1, 2, 3))
            low, high = np.quantile(each, (0.02, 0.98))
            assert low <= statistic(theirs, axis=None) <= high
        lit = ours[ours > 0.1].mean()
        assert lit == pytest.approx(theirs[theirs > 0.1].mean(), rel=0.05)
        # Width and height in the first frame, about 20 / 2 pixels.
        for frames in (ours[:, 0], theirs[:, 0]):
            sides = [s for frame in frames for s in _sides(frame > 0.1)]
            assert np.median(sides) == 10 and max(sides) < 3 * 14

    def test_theirs_part(self, shown):
        """Share of the smoothed intensity that the two runs do not have in common."""
        apart = {}
        for name in ("mm_dis01", "nbody_r0_dis02"):
            first, second = (
                ndimage.gaussian_filter(shown[f"{name}_seq{i}"], (0, 4, 4))
                for i in (0, 1)
            )
            both = np.sum(first**2 + second**2, axis=(1, 2))
            apart[name] = np.sum((first - second) ** 2, axis=(1, 2)) / both
        assert max(x[0] for x in apart.values()) < 1e-6
        assert apart["mm_dis01"].max() < 0.5
        assert apart["nbody_r0_dis02"].max() > 0.7
        assert apart["nbody_r0_dis02"].mean() > 1.5 * apart["mm_dis01"].mean()


def _sides(lit):
    """Heights and widths of the connected parts of a frame."""
    boxes = ndimage.find_objects(ndimage.label(lit, np.ones((3, 3)))[0])
    return [part.stop - part.start for box in boxes for part in box]
