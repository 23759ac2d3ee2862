"""What compiled programs exchange: texts by hand, and one that XLA compiled."""

import jax
import jax.numpy as jnp
import pytest

from earthformer_jax.profiling import communication
from earthformer_jax.profiling.communication import Collective

TEXT = """
HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%body.1 (state: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %part = f32[8,4]{1,0} parameter(0)
  %all-gather.3 = f32[8,16]{1,0} all-gather(%part), channel_id=2, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={1}
}

%cond.1 (state: (s32[], f32[8,4])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

%called.7 (x: bf16[10]) -> bf16[5] {
  ROOT %reduce-scatter = bf16[5]{0} reduce-scatter(%x), replica_groups=[4,2]<=[8], to_apply=%add
}

%unused (x: f32[9]) -> f32[9] {
  ROOT %all-reduce.9 = f32[9]{0} all-reduce(%x), to_apply=%add
}

ENTRY %main.5 (x: f32[8,4]) -> f32[] {
  %while.2 = (s32[], f32[8,4]) while(%tuple), condition=%cond.1, body=%body.1, backend_config={"known_trip_count":{"n":"10"}}
  %call.1 = bf16[5]{0} call(%y), to_apply=%called.7
  %all-reduce.2 = (f32[100]{0}, f32[3,2]{1,0}) all-reduce(%g, %h), channel_id=1, replica_groups={}, to_apply=%add
  %collective-permute-start = (f32[6]{0}, f32[6]{0}, u32[], u32[]) collective-permute-start(%z), source_target_pairs={{0,1}}
  %collective-permute-done = f32[6]{0} collective-permute-done(%collective-permute-start)
}
"""  # noqa: E501


def test_a_text_by_hand():
    assert communication.collectives(TEXT, 8) == [
        Collective("all-gather", 4 * 8 * 16, 4, 10, ((8, 16),)),
        Collective("reduce-scatter", 2 * 5, 2, 1, ((5,),)),
        Collective("all-reduce", 4 * 106, 8, 1, ((100,), (3, 2))),
        Collective("collective-permute", 4 * 6, 8, 1, ((6,),)),
    ]


def test_sums():
    sums = communication.total(communication.collectives(TEXT, 8))
    assert sums["all-gather"] == {"count": 10, "bytes": 5120, "sent": 5120 * 3 / 4}
    assert sums["all-reduce"] == {"count": 1, "bytes": 424, "sent": 424 * 2 * 7 / 8}
    assert sums["reduce-scatter"]["sent"] == 10
    assert sums["collective-permute"]["sent"] == 24
    assert communication.total([]) == {}


@pytest.mark.parametrize("kind", communication.KINDS)
def test_one_device_sends_nothing(kind):
    assert communication.sent_in_ring(kind, 100, 1) == 0


def test_a_compiled_program():
    """Gradients of a replicated matrix with respect to a divided batch are summed."""
    devices = jax.devices()
    mesh = jax.make_mesh((len(devices),), ("data",), devices=devices)
    whole, parts = (
        jax.NamedSharding(mesh, jax.P()),
        jax.NamedSharding(mesh, jax.P("data")),
    )
    gradient = jax.jit(
        jax.grad(lambda w, x: jnp.square(x @ w).sum()), out_shardings=whole
    )
    w = jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=whole)
    x = jax.ShapeDtypeStruct((2 * len(devices), 8), jnp.float32, sharding=parts)
    with jax.sharding.set_mesh(mesh):
        text = gradient.lower(w, x).compile().as_text()
    found = communication.total(communication.collectives(text, len(devices)))
    if len(devices) == 1:
        assert found == {}
    else:
        assert found["all-reduce"]["bytes"] == 4 * 8 * 4
