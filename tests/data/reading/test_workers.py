"""Processes that read: order, errors, their end, and what they import."""

import contextlib
import resource
import subprocess
import sys

import numpy as np
import pytest

from earthformer_jax.data.augment import Augment
from earthformer_jax.data.enso.examples import EnsoExamples
from earthformer_jax.data.enso.twin import OCEAN_MASK, TwinSource
from earthformer_jax.data.mnist.frames import SIZE
from earthformer_jax.data.mnist.nbody_rules import Rules
from earthformer_jax.data.mnist.nbody_sequences import RandomDraws, Sequences
from earthformer_jax.data.normalization import Affine
from earthformer_jax.data.readers.frames import ArrayFrames
from earthformer_jax.data.reading.batches import Choice, Reader
from earthformer_jax.data.reading.workers import (
    WorkerEndedError,
    WorkerError,
    Workers,
    cloudpickle,
)
from earthformer_jax.data.sevir.twin import RadarTwin
from earthformer_jax.data.sevir.windows import Cropped, TwinEvents
from earthformer_jax.data.sevir.windows import Windows as RadarWindows
from earthformer_jax.data.source import Selected
from earthformer_jax.data.windows import Windows
from tests.data.reading.sources import Numbers, Unpicklable

HEAVY = ("jax", "flax", "optax", "grain", "xarray", "pandas", "sklearn", "matplotlib")


def choices(count=12):
    return [Choice([2 * k, 2 * k + 1]) for k in range(count)]


@pytest.fixture
def workers():
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            return stack.enter_context(contextlib.closing(Workers(*arguments)))

        yield start


@pytest.mark.parametrize("side", [2, 400])  # through the pipe, and in shared memory
def test_order_and_end(workers, side):
    read = list(workers(Reader(Numbers(side=side)), choices(), 5, 2))
    assert [x["number"].tolist() for x in read] == [
        [2 * k, 2 * k + 1] for k in range(5, 12)
    ]
    for batch in read:
        assert batch["inputs"].shape == (2, 1, side, side, 1)
        expected = np.broadcast_to(
            batch["number"][:, None, None, None, None], batch["inputs"].shape
        )
        np.testing.assert_array_equal(batch["inputs"], expected)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ("value", ValueError, "example 7 is damaged"),
        ("unpicklable", WorkerError, "Unpicklable: odd"),
        (
            "killed",
            WorkerEndedError,
            "^Worker process was terminated: number 1 .* status -9",
        ),
    ],
)
def test_errors(workers, wrong, error, message):
    iterator = workers(Reader(Numbers(wrong=wrong)), choices(), 0, 2)
    for k in range(3):
        assert next(iterator)["number"].tolist() == [2 * k, 2 * k + 1]
    with pytest.raises(error, match=message):
        next(iterator)
    assert Unpicklable("odd", 1).b == 1


def test_close_ends_the_processes(workers):
    iterator = workers(Reader(Numbers()), choices(), 0, 2)
    next(iterator)
    processes = [worker._process for worker in iterator._workers]
    assert all(process.poll() is None for process in processes)
    iterator.close()
    assert all(process.poll() is not None for process in processes)
    iterator.close()


def test_what_is_defined_in_the_main_module_is_sent():
    """A program without an `if __name__` works as well."""
    program = """
import numpy as np
from earthformer_jax.data.reading.batches import Choice, Reader
from earthformer_jax.data.reading.workers import Workers
class Own:
    def __len__(self):
        return 3
    def __getitem__(self, index):
        return {"inputs": np.full(2, index)}
workers = Workers(Reader(Own()), [Choice([2, 1])], 0, 1)
print(next(workers)["inputs"].tolist())
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[[2, 2], [1, 1]]\n"


def sources():
    """One of every kind that is made or read from memory."""
    weights = OCEAN_MASK / OCEAN_MASK.sum()
    rules = Rules(frames=3, size=16, canvas=48)
    digits = np.full((4, SIZE, SIZE), 200, np.uint8)
    fields = np.zeros((9, 4, 5, 1), np.float32)
    radar = RadarWindows(TwinEvents(RadarTwin("train", 2, 3, space_step=24)), 2, 1)
    series = Windows(
        ArrayFrames(fields),
        None,
        np.arange(3),
        in_len=2,
        out_len=1,
        normalizer=Affine(),
    )
    return [
        Sequences(RandomDraws(0, "train", 3, 4, rules), digits, rules, 2),
        EnsoExamples(TwinSource("train", 2, 3, 3), Affine(2.0), weights),
        Selected(radar, np.array([1, 0])),
        Cropped(radar, (8, 8)),
        series,
        Augment(flip_width=True),
    ]


def test_unpickling_imports_numpy_and_little_else():
    program = f"""
import pickle, sys
read = pickle.load(sys.stdin.buffer)
for source in read[:-1]:
    assert source[1]["inputs"].ndim == 4
print(*[name for name in {HEAVY} if name in sys.modules])
"""
    command = [sys.executable, "-c", program]
    sent = cloudpickle.dumps(sources())
    done = subprocess.run(command, input=sent, capture_output=True, check=True)
    assert done.stdout.decode() == "\n"


def test_first_batch_comes_soon(workers):
    """In processor time, since other programs may run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    iterator = workers(Reader(sources()[0]), [Choice([0, 2])], 0, 1)
    next(iterator)
    iterator.close()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert 0 < spent < 3
