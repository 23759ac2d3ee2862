"""MovingMNIST from each of its sources."""

import gzip
import pickle

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from earthformer_jax import data
from earthformer_jax.data import pipeline
from earthformer_jax.data.mnist import digits, moving_mnist
from tests.data import tfds_folder

SMALL = dict(train=12, validation=5, test=6, in_len=3, out_len=4)


def load(seed=0, **settings):
    return data.load({"name": "moving_mnist"} | settings, seed)


def frames_of(example):
    return np.concatenate([example["inputs"], example["targets"]])[..., 0]


def sequences(count=30, frames=20, size=16):
    """uint8 `[t, n, h, w]`, every frame of every sequence different."""
    generator = np.random.default_rng(5)
    return generator.integers(0, 256, (frames, count, size, size), np.uint8)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("moving") / "mnist_test_seq.npy"
    np.save(path, sequences())
    return path


@pytest.fixture(scope="module")
def every_origin(tmp_path_factory, file):
    videos = np.moveaxis(sequences(), 0, 1)[..., None]
    folder = tfds_folder.write(
        tmp_path_factory.mktemp("tfds") / "moving_mnist" / "1.0.0",
        "moving_mnist",
        "image_sequence",
        tfds_folder.video,
        {"test": videos},
    )
    lengths = dict(in_len=3, out_len=4)
    return {
        "generated": load(**SMALL),
        "file": load(path=str(file), **lengths),
        "tfds": load(path=str(folder), **lengths),
    }


@pytest.fixture(params=["generated", "file", "tfds"])
def dataset(request, every_origin):
    return every_origin[request.param]


class TestEveryOrigin:
    def test_examples(self, dataset):
        for source in (dataset.data.train, dataset.data.validation, dataset.data.test):
            example = source[len(source) - 1]
            size = example["inputs"].shape[1]
            assert example["inputs"].shape == (3, size, size, 1)
            assert example["targets"].shape == (4, size, size, 1)
            for values in example.values():
                assert values.dtype == np.float32
                assert 0 <= values.min() and values.max() <= 1

    def test_an_example_is_a_function_of_its_number(self, dataset):
        again = pickle.loads(pickle.dumps(dataset.data.train))
        for index in (3, 0):
            for name, values in dataset.data.train[index].items():
                np.testing.assert_array_equal(values, again[index][name])

    def test_all_are_different(self, dataset):
        splits = (dataset.data.train, dataset.data.validation, dataset.data.test)
        whole = [frames_of(s[i]).tobytes() for s in splits for i in range(len(s))]
        assert len(set(whole)) == len(whole)

    def test_scores(self, dataset):
        """Persistence by hand: sum over pixels, mean over frames and examples."""
        batch = next(iter(pipeline.evaluation_batches(dataset.data.test, 2)))
        metric = dataset.task.metric
        forecast = dataset.task.references["persistence"](batch)
        scores = metric.compute(metric.update(metric.init(), forecast, batch))
        error = batch["inputs"][:, -1:] - batch["targets"]
        assert scores["mse"] == pytest.approx((error**2).sum() / (2 * 4), rel=1e-5)
        assert dataset.task.mse_units == "sum over the pixels of a frame"

    def test_nothing_is_weighted_or_changed(self, dataset):
        np.testing.assert_array_equal(dataset.data.loss_weights, np.ones((1, 1, 1, 1)))
        assert dataset.data.augment is None and dataset.data.simulated is None

    def test_display(self, dataset):
        (channel,) = dataset.data.display.channels
        assert (channel.colormap, channel.limits) == ("gray", (0.0, 1.0))

    def test_description(self, dataset):
        assert "\n" not in dataset.data.description
        assert "3 -> 4 frames" in dataset.data.description
        assert f"train {len(dataset.data.train)}," in dataset.data.description


class TestGenerated:
    def test_sizes_of_the_paper(self):
        dataset = load()
        sizes = (
            len(dataset.data.train),
            len(dataset.data.validation),
            len(dataset.data.test),
        )
        assert sizes == (8100, 900, 1000)
        assert dataset.data.train[0]["inputs"].shape == (10, 64, 64, 1)
        assert "embedded" in dataset.data.description

    def test_seeds_differ(self):
        assert np.any(
            frames_of(load(0).data.train[0]) != frames_of(load(1).data.train[0])
        )

    def test_number_of_sequences_changes_none(self):
        many = load(**SMALL | {"train": 1000})
        np.testing.assert_array_equal(
            frames_of(many.data.train[5]), frames_of(load(**SMALL).data.train[5])
        )

    def test_training_digits_are_for_training_only(self, monkeypatch):
        grey = np.zeros((4, 28, 28), np.uint8)
        grey[:3], grey[3:] = 51, 255
        made = digits.Digits(grey, training=3, description="grey squares")
        monkeypatch.setattr(moving_mnist, "load_digits", lambda path: made)
        dataset = load(**SMALL)
        assert frames_of(dataset.data.train[0]).max() == np.float32(0.2)
        assert frames_of(dataset.data.validation[0]).max() == 1
        assert frames_of(dataset.data.test[0]).max() == 1

    def test_size_and_number_of_digits(self):
        dataset = load(**SMALL | dict(size=96, num_digits=1))
        frames = frames_of(dataset.data.test[0])
        assert frames.shape == (7, 96, 96)
        lit = [np.ptp(np.nonzero(frame)[0]) for frame in frames]
        assert max(lit) < 28

    @pytest.mark.parametrize("index", [-1, 12])
    def test_no_such_sequence(self, every_origin, index):
        with pytest.raises(IndexError, match=f"sequence {index} of 12"):
            every_origin["generated"].data.train[index]


class TestSplit:
    def test_the_papers(self):
        train, validation = train_test_split(
            range(9000), test_size=0.1, random_state=123
        )
        numbers = moving_mnist.split_numbers(10_000)
        np.testing.assert_array_equal(numbers["train"], train)
        np.testing.assert_array_equal(numbers["validation"], validation)
        np.testing.assert_array_equal(numbers["test"], range(9000, 10_000))
        assert [len(x) for x in numbers.values()] == [8100, 900, 1000]

    @pytest.mark.parametrize("count", [3, 4, 10, 37, 1000])
    def test_every_sequence_once(self, count):
        numbers = moving_mnist.split_numbers(count)
        together = np.concatenate(list(numbers.values()))
        np.testing.assert_array_equal(np.sort(together), np.arange(count))
        assert all(len(x) for x in numbers.values())

    def test_too_few(self):
        with pytest.raises(ValueError, match="2 sequences cannot be divided"):
            moving_mnist.split_numbers(2)


class TestFile:
    def test_frames(self, every_origin):
        numbers = moving_mnist.split_numbers(30)
        for name in ("file", "tfds"):
            for split, which in numbers.items():
                source = getattr(every_origin[name].data, split)
                assert len(source) == len(which)
                expected = sequences()[:7, which[1]].astype(np.float32) / 255
                np.testing.assert_array_equal(frames_of(source[1]), expected)

    def test_folder(self, file):
        dataset = load(path=str(file.parent))
        assert (
            "30 sequences split in the paper's proportions" in dataset.data.description
        )

    def test_pickles_without_the_file(self, every_origin):
        source = every_origin["file"].data.train
        source[0]
        assert len(pickle.dumps(source)) < 2000

    def test_by_name(self, every_origin, tmp_path, monkeypatch):
        videos = np.moveaxis(sequences(), 0, 1)[..., None]
        tfds_folder.write(
            tmp_path / "moving_mnist" / "1.0.0",
            "moving_mnist",
            "image_sequence",
            tfds_folder.video,
            {"test": videos},
        )
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
        dataset = load(path="tfds", in_len=3, out_len=4)
        np.testing.assert_array_equal(
            frames_of(dataset.data.test[2]),
            frames_of(every_origin["file"].data.test[2]),
        )


class TestErrors:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (dict(digit="x"), "`digit` is not a setting.*`digits`"),
            (dict(num_digits=0), "num_digits=0: expected a whole number of at least 1"),
            (dict(size=28), "size=28: expected a whole number of at least 32"),
            (dict(out_len=0), "out_len=0: expected a whole number of at least 1"),
            (dict(test=0), "test=0: expected a whole number of at least 1"),
        ],
    )
    def test_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            load(**settings)

    def test_no_such_file(self, file):
        path = file.with_name("mnist_tst_seq.npy")
        with pytest.raises(
            FileNotFoundError,
            match="path=.* does not exist; did you mean 'mnist_test_seq",
        ):
            load(path=str(path))

    def test_empty_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="neither mnist_test_seq.npy nor"):
            load(path=str(tmp_path))

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (
                np.swapaxes(sequences(), 0, 1),
                r"\(30, 20, 16, 16\).*swapaxes\(x, 0, 1\)",
            ),
            (sequences(count=9, frames=25), r"shape \(25, 9, 16, 16\); expected"),
            (sequences() / 255, "is float64; expected uint8.*255 \\* x"),
            (
                sequences()[..., None],
                r"contains an array of shape \(20, 30, 16, 16, 1\); expected",
            ),
            (sequences(frames=8), "need 20 frames; the sequences of .* have 8"),
            (sequences(count=2), "2 sequences cannot be divided"),
            (np.array(None), "cannot be read.*Python objects"),
        ],
    )
    def test_arrays(self, tmp_path, array, message):
        path = tmp_path / "a.npy"
        np.save(path, array, allow_pickle=True)
        with pytest.raises(ValueError, match=message):
            load(path=str(path))

    def test_truncated(self, tmp_path, file):
        path = tmp_path / "a.npy"
        path.write_bytes(file.read_bytes()[:-1000])
        with pytest.raises(ValueError, match="cannot be read .*truncated or damaged"):
            load(path=str(path))

    def test_packed(self, tmp_path, file):
        path = tmp_path / "mnist_test_seq.npy.gz"
        path.write_bytes(gzip.compress(file.read_bytes()))
        with pytest.raises(ValueError, match="is compressed; unpack it first: gunzip"):
            load(path=str(path))

    def test_several_arrays(self, tmp_path):
        np.savez(tmp_path / "a.npz", sequences(), sequences())
        with pytest.raises(ValueError, match="is not a .npy file .it starts with b'PK"):
            load(path=str(tmp_path / "a.npz"))

    def test_other_prepared_data(self, tmp_path):
        folder = tfds_folder.write(
            tmp_path / "1.0.0",
            "mnist",
            "image",
            tfds_folder.image,
            {"test": np.zeros((4, 28, 28, 1), np.uint8)},
        )
        with pytest.raises(
            ValueError, match="expected examples with 'image_sequence'.*found {'image'"
        ):
            load(path=str(folder))


class TestSpaceStep:
    def test_pixels_are_means(self):
        whole, half = (
            load(train=3, validation=1, test=1, space_step=step).data.train[2]
            for step in (1, 2)
        )
        for name in ("inputs", "targets"):
            fine = whole[name]
            mean = sum(
                fine[:, i::2, j::2].astype(np.float64) for i in (0, 1) for j in (0, 1)
            )
            np.testing.assert_allclose(half[name], mean / 4, atol=1e-6)

    def test_impossible_step(self):
        with pytest.raises(ValueError, match="space_step=3 does not divide .* 64 x 64"):
            load(space_step=3)
