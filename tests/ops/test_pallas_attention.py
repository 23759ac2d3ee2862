"""The attention of cuboids in kernels, interpreted, against plain JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops import pallas_attention as module
from earthformer_jax.ops.dropout import keep_mask
from earthformer_jax.ops.pallas_attention import pallas_attention
from earthformer_jax.ops.softmax_attention import softmax_attention

TINY = dict(n=2, q=12, s=12, e=16, d=16)
ODD = dict(n=3, q=10, s=13, e=6, d=9)
SEED = np.array([123456789, 2987654321], np.uint32)


def arrays(*, n, q, s, e, d, b=2, a=2, bias=None, dtype=jnp.float32):
    """Arguments that have gradients; `bias` is its number of heads."""
    random = np.random.default_rng(1)

    def normal(*shape, scale=1.0):
        return jnp.asarray(scale * random.normal(size=shape), dtype)

    found = dict(
        query=normal(b, n, a, q, e, scale=e**-0.5),
        key=normal(b, n, a, s, e),
        value=normal(b, n, a, s, d),
    )
    if bias:
        found["bias"] = normal(bias, q, s).astype(jnp.float32)
    return found


def a_mask(n, q, s):
    """Holes, and positions that may attend to nothing."""
    mask = np.random.default_rng(0).random((n, q, s)) < 0.6
    mask[0, 1] = mask[-1, -1] = False
    return mask


def differences(found, mask=None, **options):
    """Largest difference of the result and of each gradient, relative."""

    def value_and_gradients(function, **more):
        def loss(found):
            out = function(**found, mask=mask, **options, **more)
            return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

        (_, out), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(found)
        return dict(gradients, out=out)

    have = value_and_gradients(pallas_attention, interpret=True)
    want = value_and_gradients(softmax_attention)
    assert have.keys() == want.keys()
    differ = {}
    for name, x in want.items():
        assert have[name].dtype == x.dtype and have[name].shape == x.shape, name
        x, y = np.asarray(x, np.float32), np.asarray(have[name], np.float32)
        differ[name] = np.abs(x - y).max() / np.abs(x).max()
    return differ


@pytest.mark.parametrize("shape", [TINY, ODD], ids=["tiny", "odd"])
@pytest.mark.parametrize(
    "heads, masked", [(None, False), (None, True), (1, True), (2, False)]
)
def test_values_and_gradients(shape, heads, masked):
    mask = a_mask(*(shape[x] for x in "nqs")) if masked else None
    differ = differences(arrays(**shape, bias=heads), mask)
    assert max(differ.values()) < 1e-5, differ


@pytest.mark.parametrize("bias", [None, 1, 2])
def test_more_positions_than_one_block(bias, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 16)
    shape = dict(n=2, q=20, s=37, e=8, d=16)
    dropped = dict(dropout_rate=0.25, seed=SEED)
    differ = differences(arrays(**shape, bias=bias), a_mask(2, 20, 37), **dropped)
    assert max(differ.values()) < 1e-5, differ


def test_one_block_of_queries_and_whole_blocks_of_keys(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 16)
    differ = differences(arrays(n=1, q=16, s=32, e=16, d=16, bias=2))
    assert max(differ.values()) < 1e-5, differ


@pytest.mark.parametrize("block", [64, 16])
def test_several_cuboids_in_a_program(block, monkeypatch):
    # 10 cuboids, 2 heads: groups of 3 or 4, the last of which are not full.
    monkeypatch.setattr(module, "_BLOCK", block)
    monkeypatch.setattr(module, "_PROGRAMS", 6 if block == 64 else 20)
    shape = dict(n=5, q=12, s=20, e=6, d=9)
    found = arrays(**shape, bias=2)
    differ = differences(found, a_mask(5, 12, 20), dropout_rate=0.25, seed=SEED)
    assert max(differ.values()) < 1e-5, differ


def test_dropout_drops_the_same():
    differ = differences(arrays(**ODD, bias=2), dropout_rate=0.3, seed=SEED)
    assert max(differ.values()) < 1e-5, differ


def test_dropped_elements_are_those_of_the_mask():
    # With equal scores and values of one hot key each, the result shows the weights.
    b, n, a, q, s = 2, 3, 2, 10, 16
    zeros = jnp.zeros((b, n, a, q, 16)), jnp.zeros((b, n, a, s, 16))
    value = jnp.broadcast_to(jnp.eye(s), (b, n, a, s, s))
    out = pallas_attention(*zeros, value, dropout_rate=0.4, seed=SEED, interpret=True)
    keep = keep_mask((b, n, a, q, s), 0.4, jnp.asarray(SEED))
    want = np.where(keep, 1 / s / 0.6, 0.0)
    np.testing.assert_allclose(out, want, rtol=1e-6)


@pytest.mark.parametrize("rate, seed", [(0.0, SEED), (0.5, None), (1.0, SEED)])
def test_rates_at_the_ends(rate, seed):
    found = arrays(**ODD)
    options = dict(dropout_rate=rate, seed=seed)
    have = pallas_attention(**found, **options, interpret=True)
    want = softmax_attention(**found, **options)
    np.testing.assert_allclose(have, want, atol=1e-6)


def test_rows_without_keys_are_zero():
    mask = a_mask(3, 10, 13)
    out = pallas_attention(**arrays(**ODD), mask=mask, interpret=True)
    empty = ~mask.any(axis=-1)
    rows = np.moveaxis(np.asarray(out), 2, -1)[:, empty]
    np.testing.assert_array_equal(rows, np.zeros_like(rows))


def test_large_scores_do_not_overflow():
    found = arrays(**ODD)
    found["query"] *= 1e4
    have = pallas_attention(**found, interpret=True)
    np.testing.assert_allclose(have, softmax_attention(**found), atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype):
    found = arrays(**ODD, bias=2, dtype=dtype)
    mask = a_mask(3, 10, 13)
    differ = differences(found, mask, dropout_rate=0.25, seed=SEED)
    assert max(differ.values()) < 0.02, differ


def test_only_what_needs_a_gradient():
    found = arrays(**ODD, bias=1)

    def loss(bias, attention, **more):
        return jnp.sum(attention(**found | dict(bias=bias), **more) ** 2)

    have = jax.grad(loss)(found["bias"], pallas_attention, interpret=True)
    want = jax.grad(loss)(found["bias"], softmax_attention)
    np.testing.assert_allclose(have, want, atol=1e-5 * float(jnp.abs(want).max()))


def test_it_can_be_mapped():
    found = arrays(**ODD)
    many = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), found)
    have = jax.vmap(lambda x: pallas_attention(**x, interpret=True))(many)
    want = jax.vmap(lambda x: softmax_attention(**x))(many)
    np.testing.assert_allclose(have, want, atol=1e-5)


@pytest.mark.parametrize(
    "shape, dtype",
    [
        (TINY, "float32"),
        (ODD, "bfloat16"),
        (dict(n=1, q=130, s=150, e=64, d=64), "bfloat16"),
        (dict(n=1, q=20, s=20, e=256, d=100), "float32"),
    ],
    ids=["tiny", "odd", "long", "wide"],
)
# The newest JAX says that it will remove the backend that compiles these kernels.
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")
def test_lowering_for_gpus(shape, dtype):
    mask = a_mask(*(shape[x] for x in "nqs"))
    found = arrays(**shape, bias=2, dtype=dtype)

    def attend(found, seed):
        return pallas_attention(**found, mask=mask, dropout_rate=0.1, seed=seed)

    def loss(found, seed):
        return attend(found, seed).astype(jnp.float32).sum()

    # Newer versions need to know which GPU it is for.
    gpu = jax.sharding.AbstractDevice("NVIDIA H100", num_cores=None, platform="gpu")
    mesh = jax.sharding.AbstractMesh((), (), abstract_device=gpu)
    fits = shape["q"] <= 64 and shape["e"] <= 64
    with jax.sharding.use_abstract_mesh(mesh):
        for function, kernels in ((attend, 1), (jax.grad(loss), 2 if fits else 4)):
            traced = jax.jit(function).trace(found, SEED)
            text = traced.lower(lowering_platforms=("cuda",)).as_text()
            names = ("forward", "backward_keys", "backward_queries", "backward_tile")
            used = [x for x in names if f'name = "cuboid_attention_{x}"' in text]
            assert len(used) == kernels, used


def test_errors():
    found = arrays(**ODD)
    wide = arrays(**ODD | dict(e=257))
    with pytest.raises(ValueError, match="at most 256 wide; got 257"):
        pallas_attention(**wide, interpret=True)
    mixed = found | dict(key=found["key"].astype(jnp.bfloat16))
    with pytest.raises(ValueError, match="one type.*got float32, bfloat16, float32"):
        pallas_attention(**mixed, interpret=True)
    with pytest.raises(ValueError, match="between 0 and 1; got 1.5"):
        pallas_attention(**found, dropout_rate=1.5, seed=SEED, interpret=True)
