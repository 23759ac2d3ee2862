"""All processes forecast for the first; here they are threads that meet at barriers."""

import threading
from unittest import mock

import numpy as np
import pytest

from earthformer_jax.data.pipeline import evaluation_batches
from earthformer_jax.data.source import read_batch
from earthformer_jax.run.distributed import forecasting
from earthformer_jax.run.distributed.forecasting import Together, share


class Number(threading.local):
    """Of the process that a thread is; threads that read ahead are of the first."""

    value = 0


class Processes:
    """Stands for a job: each thread is a process with two devices."""

    def __init__(self, count):
        self.count, self.number = count, Number()
        self._barrier, self._shared = threading.Barrier(count), {}

    def exchange(self, value):
        self._shared[self.number.value] = value
        self._barrier.wait(10)
        shared = dict(self._shared)
        self._barrier.wait(10)
        return shared

    def run(self, function):
        results = {}

        def one(i):
            self.number.value = i
            results[i] = function(i)

        threads = [threading.Thread(target=one, args=(i,)) for i in range(self.count)]
        with (
            mock.patch.object(forecasting.jax, "process_count", lambda: self.count),
            mock.patch.object(forecasting.jax, "local_device_count", lambda: 2),
            mock.patch.object(
                forecasting.jax, "process_index", lambda: self.number.value
            ),
            mock.patch.object(
                forecasting.multihost_utils,
                "broadcast_one_to_all",
                lambda x: self.exchange(x)[0],
            ),
            mock.patch.object(
                forecasting.multihost_utils,
                "process_allgather",
                lambda x: np.stack([x for _, x in sorted(self.exchange(x).items())]),
            ),
        ):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
        return results


@pytest.mark.parametrize("kind", ["float32", "uint8", "float64"])
def test_the_first_gets_all_forecasts_and_each_computes_its_share(kind):
    sizes = {}

    def functions(i):
        def forecast(batch):
            sizes.setdefault(i, []).append(len(batch["inputs"]))
            return 2 * batch["inputs"]

        def members(batch):
            return np.stack([batch["inputs"], batch["inputs"] + 1])

        return Together({"forecast": forecast, "members": members}, {"members": 1})

    inputs = np.arange(7 * 3).reshape(7, 3).astype(kind)

    def process(i):
        together = functions(i)
        if i:
            return together.serve()
        batch = {"inputs": inputs, "valid": np.ones(7, bool)}
        found = together.asked("forecast")(batch), together.asked("members")(batch)
        together.done()
        return found

    forecast, members = Processes(3).run(process)[0]
    np.testing.assert_array_equal(forecast, 2 * inputs)
    np.testing.assert_array_equal(members, [inputs, inputs + 1])
    assert sizes == {i: [4] for i in range(3)}


class Numbers:
    """Example i holds i in types that JAX does not have."""

    def __init__(self):
        self.read = []

    def __len__(self):
        return 9

    def __getitem__(self, index):
        self.read.append(index)
        return {"wide": np.array([index, 1 / 3]), "known": np.array([index > 3])}


def test_each_reads_its_share_and_the_first_gets_all():
    sources = [Numbers() for _ in range(2)]

    def process(i):
        together = Together({}, source=sources[i])
        if i:
            return together.serve()
        shared = together.shared(sources[0])
        assert len(shared) == 9
        assert shared[8]["wide"][0] == 8
        batches = list(evaluation_batches(shared, 6, num_threads=1))
        together.done()
        return batches, read_batch(shared, [2])

    batches, late = Processes(2).run(process)[0]
    wide = np.concatenate([x["wide"][x["valid"]] for x in batches])
    np.testing.assert_array_equal(wide, [[i, 1 / 3] for i in range(9)])
    known = np.concatenate([x["known"][x["valid"]] for x in batches])
    np.testing.assert_array_equal(known[:, 0], np.arange(9) > 3)
    assert wide.dtype == np.float64 and known.dtype == bool
    np.testing.assert_array_equal(late["wide"], [[2, 1 / 3]])
    assert sources[0].read == [8, 0, 1, 2, 6, 7, 2]
    assert sources[1].read == [3, 4, 5, 8, 8]


def test_alone_a_source_is_used_as_it_is():
    source = Numbers()
    together = Together({}, source=source)
    assert together.shared(source) is source


def test_alone_the_functions_are_used_as_they_are():
    function = object()
    together = Together({"forecast": function})
    assert together.asked("forecast") is function
    together.done()


@pytest.mark.parametrize(
    "examples, processes, devices", [(8, 2, 2), (7, 3, 1), (1, 4, 2)]
)
def test_shares(examples, processes, devices):
    shares = share(examples, processes, devices)
    assert len(shares) == processes and len({len(x) for x in shares}) == 1
    assert len(shares[0]) % devices == 0
    flat = np.concatenate(shares)
    np.testing.assert_array_equal(flat[:examples], np.arange(examples))
    assert set(flat[examples:]) <= {examples - 1}
