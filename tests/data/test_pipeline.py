"""Order, resuming, sharding and padding of batches."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest

from earthformer_jax.data import pipeline
from earthformer_jax.data.dataset import Data


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Example i is the number first + i."""

    size: int
    first: int = 0

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        number = np.float32(self.first + index)
        return {"inputs": np.full((2, 1, 1, 1), number), "number": np.int32(number)}


SIMULATED = 1000


def data(size=10, simulated=True):
    numbers = Numbers(size)
    return Data(
        name="numbers",
        description="numbers",
        train=numbers,
        validation=numbers,
        test=numbers,
        loss_weights=np.ones(1),
        simulated=Numbers(500, SIMULATED) if simulated else None,
    )


def take(iterator, count):
    return [next(iterator)["number"].tolist() for _ in range(count)]


def batches(**arguments):
    return pipeline.train_batches(data(), **(dict(batch_size=4, seed=3) | arguments))


class TestTraining:
    def test_every_epoch_holds_every_example_in_another_order(self):
        numbers = sum(take(batches(batch_size=5), 6), [])
        epochs = [numbers[0:10], numbers[10:20], numbers[20:30]]
        for epoch in epochs:
            assert sorted(epoch) == list(range(10))
        assert epochs[0] != epochs[1] != epochs[2]

    def test_order_depends_on_the_seed_alone(self):
        assert take(batches(), 7) == take(batches(num_threads=0), 7)
        assert take(batches(), 7) != take(batches(seed=4), 7)
        assert take(batches(seed=2**40 + 3), 2) == take(batches(seed=2**40 + 3), 2)

    @pytest.mark.parametrize("stop", [1, 3, 4, 9])
    def test_resumes_where_it_stopped(self, stop):
        arguments = dict(simulated_batches=4, simulated_fraction=0.5)
        whole = batches(**arguments)
        take(whole, stop)
        state = json.loads(json.dumps(whole.get_state()))
        again = batches(**arguments)
        take(again, 2)
        again.set_state(state)
        assert take(again, 8) == take(whole, 8)

    @pytest.mark.parametrize(
        "simulated",
        [{}, dict(simulated_batches=3), dict(simulated_fraction=0.4)],
    )
    def test_processes_share_the_global_batch(self, simulated):
        alone = take(batches(**simulated), 9)
        shares = [
            take(batches(process_index=i, process_count=2, **simulated), 9)
            for i in range(2)
        ]
        for k, together in enumerate(alone):
            assert shares[0][k] + shares[1][k] == together

    def test_simulated_batches_come_first(self):
        numbers = take(batches(simulated_batches=3), 6)
        assert sum(numbers[:3], []) == list(range(SIMULATED, SIMULATED + 12))
        assert max(sum(numbers[3:], [])) < SIMULATED

    def test_later_batches_are_mixed(self):
        iterator = batches(simulated_batches=2, simulated_fraction=0.25)
        first = sum(take(iterator, 2), [])
        later = sum(take(iterator, 100), [])
        simulated = [n for n in later if n >= SIMULATED]
        assert len(simulated) == pytest.approx(100, abs=1)
        assert not set(simulated) & set(first)
        real = [n for n in later if n < SIMULATED]
        assert sorted(real[:10]) == list(range(10))

    def test_simulated_examples_only(self):
        numbers = sum(take(batches(simulated_fraction=1.0), 3), [])
        assert numbers == list(range(SIMULATED, SIMULATED + 12))

    @pytest.mark.slow
    def test_workers_change_nothing(self):
        alone = take(batches(), 9)
        with contextlib.closing(batches(num_workers=2)) as workers:
            assert take(workers, 6) == alone[:6]
            state = workers.get_state()
        again = batches(num_threads=0)
        again.set_state(state)
        assert take(again, 3) == alone[6:]

    def test_resumes_with_other_processes(self):
        one = batches(process_count=1)
        whole = take(one, 3)
        two = [batches(process_index=i, process_count=2) for i in range(2)]
        for part in two:
            part.set_state(one.get_state())
        rest = [a + b for a, b in zip(take(two[0], 4), take(two[1], 4), strict=True)]
        assert whole + rest == take(batches(), 7)

    def test_augmentation_is_a_function_of_the_position(self):
        def augment(example, generator):
            return example | {"number": np.int32(generator.integers(10**6))}

        changing = dataclasses.replace(data(), augment=augment)

        def start(**arguments):
            return pipeline.train_batches(changing, batch_size=5, seed=1, **arguments)

        numbers = take(start(), 6)
        assert take(start(num_threads=0), 6) == numbers
        assert len(set(sum(numbers, []))) > 25  # anew in every epoch
        later = start()
        later.set_state({"next_index": 4})
        assert take(later, 2) == numbers[4:]
        halves = [take(start(process_index=i, process_count=5), 6) for i in range(5)]
        assert [sum((h[k] for h in halves), []) for k in range(6)] == numbers

    def test_arrays_are_stacked(self):
        batch = next(batches())
        assert batch["inputs"].shape == (4, 2, 1, 1, 1)
        assert batch["inputs"].dtype == np.float32

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (dict(process_count=3), "batch_size=4 must be a positive multiple .*3"),
            (dict(batch_size=0), "batch_size=0"),
            (dict(simulated_fraction=1.5), "simulated_fraction=1.5 is not between"),
            (dict(simulated_batches=-1), "simulated_batches=-1 is negative"),
        ],
    )
    def test_impossible_numbers(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            batches(**arguments)

    def test_no_simulated_examples(self):
        with pytest.raises(ValueError, match="'numbers' .* has no simulated examples"):
            pipeline.train_batches(
                data(simulated=False), batch_size=4, seed=0, simulated_batches=1
            )


class TestEvaluation:
    @pytest.mark.parametrize("processes", [1, 2, 4])
    @pytest.mark.parametrize("size", [1, 4, 10, 11, 12])
    def test_every_example_once(self, size, processes):
        shares = [
            pipeline.evaluation_batches(Numbers(size), 4, i, processes)
            for i in range(processes)
        ]
        assert {len(share) for share in shares} == {-(-size // 4)}
        seen = []
        for together in zip(*shares, strict=True):
            for batch in together:
                assert len(batch["number"]) == len(batch["valid"]) == 4 // processes
                seen += batch["number"][batch["valid"]].tolist()
        assert seen == list(range(size))

    def test_last_batch_repeats_the_last_example(self):
        *_, last = pipeline.evaluation_batches(Numbers(6), 4)
        np.testing.assert_array_equal(last["number"], [4, 5, 5, 5])
        np.testing.assert_array_equal(last["valid"], [True, True, False, False])

    def test_can_be_iterated_again(self):
        evaluation = pipeline.evaluation_batches(Numbers(6), 4)
        first, second = (
            [batch["number"].tolist() for batch in evaluation] for _ in range(2)
        )
        assert first == second
