"""The memory that there is, and how it is written."""

import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.settings import ConfigError
from earthformer_jax.training import mesh
from earthformer_jax.training.settings import ParallelSettings

EVERYWHERE = jax.P()


class TestLayout:
    def test_axes(self):
        devices = jax.devices()
        made = mesh.make_mesh(ParallelSettings(space=2), devices)
        assert dict(made.shape) == {"data": 2, "space": 2, "model": 1}
        assert mesh.data_mesh().shape["data"] == len(devices) == 4
        with pytest.raises(ConfigError, match="config.parallel.space=3 times .* 4"):
            mesh.make_mesh(ParallelSettings(space=3))

    def test_fields_in_parts(self):
        made = mesh.make_mesh(ParallelSettings(space=2))
        batch = {
            "inputs": np.arange(48.0).reshape(2, 1, 6, 4, 1),
            "wide": np.zeros((2, 1, 3, 4, 1)),
            "valid": np.array([True, False]),
        }
        placed = mesh.put_batch(made, batch)
        for name, part in ("inputs", (1, 1, 3, 4, 1)), ("wide", (1, 1, 3, 2, 1)):
            shards = placed[name].addressable_shards
            assert {shard.data.shape for shard in shards} == {part}
            np.testing.assert_array_equal(placed[name], batch[name])
        assert placed["valid"].addressable_shards[0].data.shape == (1,)
        with pytest.raises(ConfigError, match="space=2 divides neither .* 3 x 5 cells"):
            mesh.by_field(made, (2, 1, 3, 5, 1))

    def test_large_arrays_in_parts(self):
        made = mesh.make_mesh(ParallelSettings(model=4))
        tree = {
            "kernel": jnp.zeros((3, 3, 64, 64)),
            "tall": jnp.zeros((65, 4, 64)),
            "odd": jnp.zeros((33, 33)),
            "small": jnp.zeros(64),
            "step": jnp.zeros(()),
        }
        found = jax.tree.map(lambda x: x.spec, mesh.state_sharding(tree, made))
        assert found == {
            "kernel": jax.P(None, None, None, "model"),
            "tall": jax.P(None, None, "model"),
            "odd": EVERYWHERE,
            "small": EVERYWHERE,
            "step": EVERYWHERE,
        }
        whole = mesh.state_sharding(tree, mesh.data_mesh())
        assert {x.spec for x in jax.tree.leaves(whole)} == {EVERYWHERE}


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
