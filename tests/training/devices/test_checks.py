"""Devices share the work as the settings say, or a message says why they cannot."""

import pytest

from earthformer_jax.settings import ConfigError
from earthformer_jax.training.devices import checks
from earthformer_jax.training.settings import ParallelSettings, from_config
from tests.training import toy


def settings(**changes):
    return from_config(toy.config(**changes))


class TestCheckDevices:
    def test_parts_divide_the_devices(self):
        checks.check_devices(from_config({"parallel": {"space": 2, "model": 2}}), 8)
        with pytest.raises(ConfigError) as error:
            checks.check_devices(from_config({"parallel": {"space": 3}}), 4)
        assert str(error.value).startswith(
            "config.parallel.space=3 times config.parallel.model=1 does not divide the "
            "number of devices, 4; expected"
        )

    def test_programs_for_each_device_divide_batches_only(self):
        with pytest.raises(
            ConfigError, match="config.parallel.backend='pmap' .* batches only"
        ):
            from_config({"parallel": {"backend": "pmap", "space": 2}})

    def test_batches_of_any_size_for_one_program(self):
        checks.check_devices(settings(), 3)

    @pytest.mark.parametrize("backend", ["shard_map", "pmap"])
    def test_equal_shares_for_a_program_for_each_device(self, backend):
        parallel = {"parallel": {"backend": backend}, "train": {"micro_batch": 16}}
        checks.check_devices(from_config(parallel), 8)
        with pytest.raises(ConfigError, match="train.micro_batch=16 cannot .* 3 dev"):
            checks.check_devices(from_config(parallel), 3)

    def test_processes_have_equal_shares(self):
        with pytest.raises(ConfigError, match="micro_batch=4 cannot .* 3 processes"):
            checks.check_devices(settings(), 3, processes=3)
        parts = {"parallel": {"space": 2}}
        with pytest.raises(ConfigError, match="does not divide the 1 devices of each"):
            checks.check_devices(from_config(parts), 4, processes=4)


def test_parts_of_fields():
    parallel = ParallelSettings(space=4)
    checks.check_fields(parallel, [(2, 8, 3, 1), (2, 3, 8, 1)])
    with pytest.raises(ConfigError, match="space=4 divides neither .* 6 x 3 cells"):
        checks.check_fields(parallel, [(2, 8, 3, 1), (2, 6, 3, 1)])
