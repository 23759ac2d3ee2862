"""Rainformer's blocks: the PyTorch original's numbers, laws, refusals."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.interop import torch_rainformer
from earthformer_jax.models.rainformer import attention as att
from earthformer_jax.models.rainformer import blocks
from tests import golden_files


class Stage(nn.Module):
    """A stage, made of what the model makes it of, under the model's names."""

    name_in_model: str
    resample: nn.Module
    balance: nn.Module

    @nn.compact
    def __call__(self, x, skip=None, *, train=False):
        way = "merge" if isinstance(self.resample, blocks.PatchMerging) else "expand"
        x = self.resample.clone(name=f"{self.name_in_model}_{way}", parent=self)(x)
        x = x if skip is None else jnp.concatenate([x, skip], axis=-1)
        balance = self.balance.clone(name=self.name_in_model, parent=self)
        return balance(x, train=train)


def attention(shifted, window=4, relative=True):
    return att.WindowAttention(2, 5, window, shifted, relative)


def stage(name, resample, hidden):
    return Stage(name, resample, blocks.FeatureBalance(hidden, 2, 4, 4))


ENCODER = stage("encoder_0", blocks.PatchMerging(8), 32)
# Name of the fixture: module, prefix of its parameters in a whole model.
GOLDEN = {
    "CASA_eval": (blocks.CASA(), ""),
    "CASA_train": (blocks.CASA(), ""),
    "CA_swin": (att.ChannelAttention(shared=False), ""),
    "DoubleConv_eval": (blocks.DoubleConv(5), ""),
    "DoubleConv_train": (blocks.DoubleConv(5), ""),
    "GRU": (blocks.GateFusion(), ""),
    "PatchExpanding": (blocks.PatchExpanding(5), "linear"),
    "PatchMerging": (blocks.PatchMerging(8), "linear"),
    "SwinBlock_shift0": (att.SwinBlock(32, 2, 4, 4, False), ""),
    "SwinBlock_shift1": (att.SwinBlock(32, 2, 4, 4, True), ""),
    "WindowAttention_shift0_rel1": (attention(False), ""),
    "WindowAttention_shift1_rel0": (attention(True, relative=False), ""),
    "WindowAttention_shift1_rel1": (attention(True), ""),
    "WindowAttention_shift1_ws3": (attention(True, window=3), ""),
    "StageModule_eval": (ENCODER, "stage1."),
    "StageModule_layers4_eval": (ENCODER, "stage1."),
    "StageModule_train": (ENCODER, "stage1."),
    "StageModule_up_eval": (
        stage("decoder_2", blocks.PatchExpanding(8), 32),
        "stage5.",
    ),
    "StageModule_up_final_eval": (
        stage("head", blocks.PatchExpanding(5), 20),
        "stage8.",
    ),
}
KEEPS_PLANES_LAST = ("CA_swin", "Swin", "Window")


def arrays(data, name):
    """Inputs, output, cotangent and input gradients, channels last."""
    last = name.startswith(KEEPS_PLANES_LAST)

    def move(key):
        behind = last or (name.startswith("Patch") and "input" not in key)
        return data[key] if behind else np.moveaxis(data[key], 1, -1)

    inputs = [k for k in ("x", "l", "x2") if f"input/{k}" in data]
    return (
        [move(f"input/{k}") for k in inputs],
        move("output/y"),
        move("cotangent/y"),
        [move(f"grad/input/{k}") for k in inputs],
    )


def largest(have, want):
    """Largest difference where both are known, relative to the largest value."""
    have, want = ([np.asarray(a) for a in jax.tree.leaves(t)] for t in (have, want))
    pairs = [(h, w, np.isfinite(w)) for h, w in zip(have, want, strict=True)]
    scale = max(np.abs(np.where(known, w, 0)).max() for _, w, known in pairs)
    return max(np.abs(np.where(k, h - w, 0)).max() for h, w, k in pairs) / scale


@pytest.mark.parametrize("name", GOLDEN)
def test_the_original(name, record_property):
    data = golden_files.load(f"baselines/rainformer_{name}")
    module, prefix = GOLDEN[name]
    inputs, want, cotangent, input_grads = arrays(data, name)
    train = dict(train=True) if name.endswith("_train") else {}

    template = jax.eval_shape(module.init, jax.random.key(0), *inputs)

    def ours(entries):
        entries = {
            prefix * prefix.endswith(".") + k: np.asarray(v) for k, v in entries.items()
        }
        return torch_rainformer.import_variables(entries, template)

    param = golden_files.group(data, "param")
    v = ours(param)
    rest = {k: v[k] for k in v if k != "params"}

    @jax.jit
    def compute(params, inputs):
        def forward(params, inputs):
            v = {"params": params, **rest}
            return module.apply(v, *inputs, **train, mutable="batch_stats")

        y, pull, after = jax.vjp(forward, params, inputs, has_aux=True)
        return y, pull(jnp.asarray(cotangent)), after

    y, (grads, at_inputs), after = compute(v["params"], inputs)
    error = largest(y, want)
    record_property("golden Rainformer blocks output error", float(error))
    assert error < 1e-5

    found = golden_files.group(data, "grad/param")
    stored = golden_files.gradients(lambda x: ours(x)["params"], param, found)
    error = largest((grads, at_inputs), (stored, input_grads))
    record_property("golden Rainformer blocks gradient error", float(error))
    assert error < 1e-4
    unused = [  # what the original never calls has no gradient there
        jnp.abs(g).max()
        for g, s in zip(jax.tree.leaves(grads), jax.tree.leaves(stored), strict=True)
        if np.isnan(s).all()
    ]
    assert not any(unused)

    if train:
        stored = ours(param | golden_files.group(data, "output/after"))["batch_stats"]
        assert largest(after["batch_stats"], stored) < 1e-5


@pytest.mark.parametrize("name", [n for n in GOLDEN if "shift1" in n])
def test_masks_of_the_original(name):
    """The last row and the last column of windows, and the corner of both."""
    data = golden_files.load(f"baselines/rainformer_{name}")
    module, _ = GOLDEN[name]
    _, h, w, _ = data["input/x"].shape
    side = module.window
    const = {k.rsplit(".", 1)[-1]: np.isfinite(data[k]) for k in data if "mask" in k}
    const = {k.rsplit("/", 1)[-1]: v for k, v in const.items()}
    have = att.window_mask((h, w), side).reshape(h // side, w // side, side**2, side**2)
    want = np.ones_like(have)
    want[-1] &= const["upper_lower_mask"]
    want[:, -1] &= const["left_right_mask"]
    np.testing.assert_array_equal(have, want)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@functools.cache
def attend(shifted, window=4):
    module = att.WindowAttention(2, 3, window, shifted)
    x = draw(1, 8, 12, 6)
    v = jax.jit(module.init)(jax.random.key(0), x)
    # The attention over channels sees the whole plane: switch it off.
    ca = jax.tree.map(jnp.zeros_like, v["params"]["channel_attention"])
    v = {"params": v["params"] | {"channel_attention": ca}}
    return jax.jit(lambda x: module.apply(v, x)), x


@pytest.mark.parametrize("shifted", [False, True])
def test_windows_do_not_see_each_other(shifted):
    """A change reaches its own window, which a shifted plane cuts at its border."""
    run, x = attend(shifted)
    changed = np.abs(run(x.at[0, 5, 0].add(1.0)) - run(x))[0].max(-1) > 1e-6
    want = np.zeros((8, 12), bool)
    want[slice(2, 6) if shifted else slice(4, 8), slice(0, 2 if shifted else 4)] = True
    np.testing.assert_array_equal(changed, want)


def test_the_position_bias_counts_from_query_to_key():
    """A table with one large entry sends every position to the neighbour it names."""
    module = att.WindowAttention(1, 4, 4, False)
    x = draw(1, 4, 4, 4)
    v = jax.eval_shape(module.init, jax.random.key(0), x)
    still = jax.tree.map(lambda a: jnp.zeros(a.shape), v["params"]["channel_attention"])
    table = jnp.zeros((7, 7)).at[3 + 1, 3 + 0].set(1e3)  # the key is one row below
    eye = jnp.eye(4)
    params = dict(
        position_bias=table,
        qkv=dict(kernel=jnp.concatenate([0 * eye, 0 * eye, eye], axis=1)),
        out=dict(kernel=eye, bias=jnp.zeros(4)),
        channel_attention=still,
    )
    y = jax.jit(module.apply)({"params": params}, x)
    np.testing.assert_allclose(y[0, :3], 0.5 * x[0, 1:], atol=1e-6)


def test_patches_come_back():
    """Merging and expanding with identities are inverse; the channel is slowest."""
    x = draw(2, 4, 6, 3)
    merge, expand = blocks.PatchMerging(12), blocks.PatchExpanding(3)
    v = {"params": {"linear": dict(kernel=jnp.eye(12), bias=jnp.zeros(12))}}
    merged = merge.apply(v, x)
    np.testing.assert_array_equal(merged[:, 0, 0, 4:8], x[:, :2, :2, 1].reshape(2, 4))
    v = {"params": {"linear": dict(kernel=jnp.eye(3), bias=jnp.zeros(3))}}
    np.testing.assert_array_equal(expand.apply(v, merged), x)


def test_the_gate_by_hand():
    """Gates at their ends pass one of both; their norm is over the whole plane."""
    far, near = draw(2, 3, 4, 2), draw(2, 3, 4, 2, seed=1)
    gate = blocks.GateFusion(upstream_dead_params=False)
    v = jax.jit(gate.init)(jax.random.key(0), far, near)
    norm = v["params"]["gates"]["norm"]
    chex.assert_shape(norm["scale"], (3, 4, 4))
    ends = jnp.asarray([50.0, 50.0, -50.0, -50.0]) * jnp.ones((3, 4, 1))
    norm = dict(scale=0 * norm["scale"], bias=ends)
    params = {"gates": v["params"]["gates"] | {"norm": norm}}
    np.testing.assert_allclose(gate.apply({"params": params}, far, near), far)
    params["gates"]["norm"] = dict(scale=norm["scale"], bias=-ends)
    np.testing.assert_allclose(gate.apply({"params": params}, far, near), near)


def test_dead_parameters_are_made_but_never_used():
    far = draw(1, 4, 4, 3)
    sizes = {}
    for dead in (False, True):
        gate = blocks.GateFusion(upstream_dead_params=dead)
        v = jax.eval_shape(gate.init, jax.random.key(0), far, far)
        sizes[dead] = sum(a.size for a in jax.tree.leaves(v))
        alive = {"params": {"gates": v["params"]["gates"]}}
        jax.eval_shape(gate.apply, alive, far, far)
    # 3x3 convolutions c to c and 2c to c, and two norms over planes of 4 x 4.
    assert sizes[True] - sizes[False] == 27 * 3**2 + 2 * 3 + 2 * 2 * 3 * 4 * 4


@pytest.mark.parametrize(
    ("features", "shared", "hidden"),
    [(8, True, 8), (32, True, 2), (159, False, 159), (160, False, 10)],
)
def test_hidden_width_of_channel_attention(features, shared, hidden):
    module = att.ChannelAttention(shared)
    x = jax.ShapeDtypeStruct((1, 2, 2, features), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    assert {p["bias"].size for p in params.values()} == {features, hidden}
    assert len(params) == (2 if shared else 4)


@pytest.mark.slow
def test_recomputation_keeps_names_and_values():
    x = draw(1, 4, 4, 4)
    units = [blocks.FeatureBalance(8, 1, 4, 2, remat=remat) for remat in (False, True)]
    v = jax.jit(units[0].init)(jax.random.key(0), x)
    plain, again = (jax.jit(unit.apply)(v, x) for unit in units)
    np.testing.assert_allclose(plain, again, rtol=1e-5, atol=1e-6)

    def program(unit):
        return str(jax.make_jaxpr(jax.grad(lambda v: unit.apply(v, x).sum()))(v))

    assert ["remat" in program(unit) for unit in units] == [False, True]


def test_the_gradient_of_the_maximum_goes_to_one_position():
    x = jnp.asarray([[1.0, 3.0, 3.0], [-2.0, -2.0, -5.0]])
    np.testing.assert_array_equal(att.maximum(x, 1), x.max(1))
    np.testing.assert_array_equal(att.maximum(x, 0), x.max(0))
    gradient = jax.grad(lambda x: att.maximum(x, 1) @ jnp.asarray([5.0, 7.0]))(x)
    np.testing.assert_array_equal(gradient, [[0, 5, 0], [7, 0, 0]])


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (attention(True), r"windows of side 4 do not fill a plane of \(6, 8\)"),
        (blocks.PatchMerging(4, 4), r"patches of side 4 do not fill a plane"),
        (blocks.PatchExpanding(4, 2), "3 channels do not make patches of side 2"),
    ],
)
def test_refusals(module, message):
    with pytest.raises(ValueError, match=message):
        module.init(jax.random.key(0), jnp.zeros((1, 6, 8, 3)))
