"""The memory that there is, and how it is written."""

import resource

import jax
import jax.numpy as jnp
import pytest

from earthformer_jax.training import mesh


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("memory.max", f"{2**28}\n", 2**28),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", f"{2**27}", 2**27),
    ],
)
def test_limits_of_a_container(tmp_path, monkeypatch, name, text, limit):
    infinite = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: (infinite, infinite))
    whole = mesh.host_bytes(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert mesh.host_bytes(tmp_path) == (limit or whole)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**20, infinite))
    assert mesh.host_bytes(tmp_path) == 2**20


def test_bytes_of_a_program():
    """At least those of arguments and results, on every device."""
    x = jax.ShapeDtypeStruct((256, 256), jnp.float32)
    compiled = jax.jit(lambda a: a @ a).lower(x).compile()
    assert mesh.program_bytes(compiled) >= 2 * 4 * 256**2 * len(jax.local_devices())


def test_text():
    assert [mesh.size_text(2.0**n) for n in (10, 20, 34, 55)] == [
        "0.0 MiB",
        "1.0 MiB",
        "16.0 GiB",
        "32,768.0 TiB",
    ]
