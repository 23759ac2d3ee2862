"""Machines by name."""

import pytest

from earthformer_jax.profiling import machines
from earthformer_jax.settings import ConfigError


@pytest.mark.parametrize(
    "text, kind, hosts, per_host",
    [
        ("H100", "H100", 1, 1),
        ("8xH100", "H100", 1, 8),
        ("8xh100", "H100", 1, 8),
        ("2x4xA100-80GB", "A100-80GB", 2, 4),
        ("2xA100", "A100-40GB", 1, 2),
        ("4xCPU", "CPU", 1, 4),
        ("v5e-8", "v5e", 1, 8),
        ("v5litepod-16", "v5e", 1, 16),
        ("v4-8", "v4", 1, 4),
        ("v5p-16", "v5p", 1, 8),
        ("2xv6e-8", "v6e", 1, 16),
    ],
)
def test_forms(text, kind, hosts, per_host):
    machine = machines.parse(text)
    assert (machine.kind.name, machine.hosts, machine.per_host) == (
        kind,
        hosts,
        per_host,
    )
    assert machine.count == hosts * per_host


@pytest.mark.parametrize(
    "text, message",
    [
        ("8xH10", "'H10' is unknown; did you mean H100.* known are V100-16GB, .*CPU"),
        ("8xRadeon", "'Radeon' is unknown; known are V100-16GB"),
        ("v9-8", "'v9-8' is unknown"),
        ("", "expected a number and a kind of device"),
        ("8 H100", "expected a number and a kind of device"),
        ("0xH100", "has 0 devices; expected from 1"),
        ("99999xH100", "has 99999 devices; expected from 1 to 4096"),
        ("v4-7", "counts cores, of which a chip has 2; expected a multiple of 2"),
    ],
)
def test_wrong_names(text, message):
    with pytest.raises(ConfigError, match=message) as error:
        machines.parse(text)
    assert str(error.value).startswith(f"--plan_devices={text}")


def test_names_for_readers():
    assert str(machines.parse("2x4xA100-80GB")) == "2 hosts x 4 x A100-80GB"
    assert str(machines.parse("v5e-8")) == "8 x v5e"


def test_what_the_table_says():
    h100, cpu = machines.KINDS["H100"], machines.KINDS["CPU"]
    assert h100.usable == 0.75 * 80e9
    assert machines.KINDS["v5e"].usable == 16 * 2**30
    assert h100.rate("bfloat16") == 989e12
    assert h100.rate("") == h100.rate("float32") == 495e12
    assert machines.KINDS["V100-16GB"].rate("bfloat16") is None
    assert cpu.usable is None and cpu.rate("float32") is None
    for kind in machines.KINDS.values():
        if kind.platform != machines.CPU:
            assert 1e9 < kind.link < kind.bandwidth < 1e13
            assert 1e13 < kind.rate("float32") < 1e16


@pytest.mark.parametrize(
    "device_kind, memory, name",
    [
        ("NVIDIA H100 80GB HBM3", None, "H100"),
        ("NVIDIA H200", None, "H200"),
        ("NVIDIA A100-SXM4-40GB", 30e9, "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", 60e9, "A100-80GB"),
        ("TPU v5 lite", None, "v5e"),
        ("TPU v4", None, "v4"),
        ("cpu", None, None),
        ("NVIDIA GeForce RTX 4090", None, None),
    ],
)
def test_devices_at_hand(device_kind, memory, name):
    found = machines.of_device(device_kind, memory)
    assert (found and found.name) == name
