"""The expected efficiency follows from bytes, bandwidths and the time of a step."""

import argparse

import pytest

from benchmarks import expected_scaling as lib
from earthformer_jax.profiling import machines

KINDS = {"all-reduce": dict(count=300, bytes=60e6, sent=0)}
ASSUMED = argparse.Namespace(share=0.5, network=50.0, latency=10.0, combine=30.0)


def test_bytes_of_a_ring():
    assert lib.sent(KINDS, 1) == 0
    assert lib.sent(KINDS, 2) == 60e6
    assert lib.sent(KINDS, 256) == pytest.approx(2 * 255 / 256 * 60e6)


def test_time_of_an_exchange():
    time = lib.exchange_seconds(
        KINDS, 4, bandwidth=9e9, latency=1e-5, combine=30 * 2**20
    )
    assert time == pytest.approx(90e6 / 9e9 + 2 * 4 * 1e-5)  # two messages, 4 rounds
    one = lib.exchange_seconds(KINDS, 1, bandwidth=9e9, latency=1e-5, combine=1)
    assert one == 0


def test_bandwidth():
    gpus, tpus = machines.parse("8xH100"), machines.parse("v5e-8")
    assert lib.bandwidth_of(gpus, 8, 5e10) == 450e9
    assert lib.bandwidth_of(gpus, 16, 5e10) == 5e10
    assert lib.bandwidth_of(tpus, 256, 5e10) == 200e9
    assert lib.bandwidth_of(machines.parse("CPU"), 2, 5e10) == 5e10


def test_what_grows_with_the_devices_is_named():
    gathers = [{"all-gather": {"bytes": 10 * n}} | KINDS for n in (2, 4)]
    assert lib.growing({"2": gathers[0], "4": gathers[1]}) == ["all-gather"]
    assert lib.growing({"2": KINDS, "4": KINDS}) == []


def test_a_larger_model():
    found = dict(kinds=KINDS, parameters=15e6, flops_per_device=1, dtype="float32")
    large = lib.scaled(found, 30e6, 100, 0.25, 8)
    assert large["kinds"]["all-reduce"] == KINDS["all-reduce"] | {"bytes": 120e6}
    assert large["flops_per_device"] == 800e9 and large["measured_s"] == 2.0
    assert large["dtype"] == "float32" and found["flops_per_device"] == 1


def test_efficiency():
    found = dict(kinds=KINDS, flops_per_device=989e12 * 0.05, dtype="bfloat16")
    made = lib.rows(found, machines.parse("8xH100"), ASSUMED)
    assert [row["devices"] for row in made] == [*lib.DEVICES]
    assert made[0]["efficiency"] == 1 and made[0]["compute_s"] == pytest.approx(0.1)
    efficiencies = [row["efficiency"] for row in made]
    assert efficiencies == sorted(efficiencies, reverse=True)
    last = made[-1]
    seconds = lib.sent(KINDS, 256) / 50e9 + 2 * 16 * 1e-5
    assert last["exchange_s"] == pytest.approx(seconds)
    assert last["efficiency"] == pytest.approx(0.1 / (0.1 + seconds))
    found["measured_s"] = 2.0
    (first, *_) = lib.rows(found, machines.parse("CPU"), ASSUMED)
    assert first["compute_s"] == 2.0
    assert "| H100 | 256 | 100 |" in lib.table(made)
