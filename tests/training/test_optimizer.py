"""The optimiser: its schedule, which parameters decay, and steps of the reference."""

import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from earthformer_jax.interop import official
from earthformer_jax.training import optimizer
from tests import golden_files

SCHEDULE = dict(warmup_fraction=0.2, warmup_min_ratio=0.0, min_lr_ratio=1e-3)


class TestWarmupCosine:
    def test_by_hand(self):
        rate = optimizer.warmup_cosine(2.0, 100, **SCHEDULE)
        assert rate(0) == 0
        np.testing.assert_allclose(rate(10), 1.0, rtol=1e-6)
        np.testing.assert_allclose(rate(20), 2.0, rtol=1e-6)
        np.testing.assert_allclose(rate(60), 2 * (0.001 + 0.999 / 2), rtol=1e-6)
        np.testing.assert_allclose(rate(100), 2e-3, rtol=1e-5)

    def test_rises_then_falls_and_stays_at_the_minimum(self):
        steps = np.arange(300)
        rates = jax.vmap(optimizer.warmup_cosine(1.0, 100, **SCHEDULE))(steps)
        assert np.all(np.diff(rates[:21]) > 0)
        assert np.all(np.diff(rates[20:101]) < 0)
        np.testing.assert_allclose(rates[100:], 1e-3, rtol=1e-4)

    def test_first_step_can_start_above_zero(self):
        rate = optimizer.warmup_cosine(1.0, 10, warmup_min_ratio=0.1)
        np.testing.assert_allclose([rate(0), rate(1)], [0.1, 0.55], rtol=1e-6)

    @pytest.mark.parametrize("total_steps", [1, 2, 3])
    @pytest.mark.parametrize("warmup_fraction", [0.0, 0.5, 1.0])
    def test_short_trainings_have_finite_rates(self, total_steps, warmup_fraction):
        rate = optimizer.warmup_cosine(
            1.0, total_steps, warmup_fraction=warmup_fraction
        )
        assert all(0 <= rate(step) <= 1 for step in range(total_steps + 1))

    @pytest.mark.parametrize("case", range(4))
    def test_reference(self, case):
        data = golden_files.load("x_lr_schedule")
        expected, c = data[f"{case}/lr"], json.loads(str(data[f"{case}/config"]))
        rate = optimizer.warmup_cosine(
            c["base_lr"],
            c["total_num_steps"],
            warmup_fraction=c["warmup_percentage"],
            warmup_min_ratio=c["warmup_min_lr_ratio"],
            min_lr_ratio=c["min_lr_ratio"],
        )
        with jax.enable_x64(True):
            rates = np.asarray(jax.vmap(rate)(np.arange(len(expected))))
        total = c["total_num_steps"]
        np.testing.assert_allclose(rates[: total + 1], expected[: total + 1], rtol=1e-9)
        # The reference's cosine rises again afterwards; ours must not.
        np.testing.assert_allclose(
            rates[total:], c["base_lr"] * c["min_lr_ratio"], rtol=1e-9
        )


class TestDecayMask:
    def test_names_decide(self):
        ones = jnp.ones(2)
        params = {
            "global_vectors": ones,
            "dense": {"kernel": ones, "bias": ones},
            "position": {"embedding": ones},
            "attention": {
                "relative_position_bias": ones,
                "norm": {"scale": ones, "bias": ones},
                "global_norm": {"scale": ones, "bias": ones},
            },
            "root_mean_square": {"rms_scale": ones},
            "group_norm_0": {"scale": ones, "bias": ones},
        }
        assert optimizer.decay_mask(params) == {
            "global_vectors": True,
            "dense": {"kernel": True, "bias": False},
            "position": {"embedding": True},
            "attention": {
                "relative_position_bias": False,
                "norm": {"scale": False, "bias": False},
                "global_norm": {"scale": False, "bias": False},
            },
            "root_mean_square": {"rms_scale": True},
            "group_norm_0": {"scale": True, "bias": False},
        }

    def test_flax_names_its_group_norms_by_class(self):
        class Model(nn.Module):
            @nn.compact
            def __call__(self, x):
                return nn.LayerNorm()(nn.GroupNorm(num_groups=2)(x))

        params = Model().init(jax.random.key(0), jnp.ones((1, 4)))["params"]
        mask = optimizer.decay_mask(params)
        assert mask["GroupNorm_0"] == {"scale": True, "bias": False}
        assert mask["LayerNorm_0"] == {"scale": False, "bias": False}


class TestAdamW:
    def test_parameter_without_gradient_is_left_alone(self):
        params = {"used": {"kernel": jnp.ones(3)}, "unused": {"kernel": jnp.ones(3)}}
        tx = optimizer.adamw(0.1, weight_decay=0.5, clip_norm=1.0)
        state = tx.init(params)
        for _ in range(3):
            grads = jax.grad(lambda p: jnp.sum(p["used"]["kernel"] ** 2))(params)
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        np.testing.assert_array_equal(params["unused"]["kernel"], np.ones(3))
        assert np.all(params["used"]["kernel"] < 0.9)

    def test_parameter_that_once_had_a_gradient_goes_on_decaying(self):
        params = {"kernel": jnp.ones(3)}
        tx = optimizer.adamw(0.1, weight_decay=0.5)
        state = tx.init(params)
        _, state = tx.update({"kernel": jnp.ones(3)}, state, params)
        zero = {"kernel": jnp.zeros(3)}
        updates, _ = tx.update(zero, state, params)
        without, _ = optimizer.adamw(0.1).update(zero, state, params)
        np.testing.assert_allclose(
            updates["kernel"], without["kernel"] - 0.1 * 0.5, rtol=1e-6
        )

    def test_clips_the_common_norm(self):
        grads = {"a": jnp.full(9, 2.0), "b": jnp.full(16, 2.0)}  # norm 10
        clipped, _ = optimizer.clip_by_global_norm(1.0).update(grads, ())
        np.testing.assert_allclose(optax.tree.norm(clipped), 1.0, rtol=1e-6)
        unchanged, _ = optimizer.clip_by_global_norm(11.0).update(grads, ())
        np.testing.assert_array_equal(unchanged["a"], grads["a"])

    def test_switched_off_links_keep_the_structure_of_the_state(self):
        params = {"kernel": jnp.ones(3)}
        everything = optimizer.adamw(0.1, weight_decay=0.1, clip_norm=1.0)
        structure = jax.tree.structure(everything.init(params))
        assert structure == jax.tree.structure(optimizer.adamw(0.1).init(params))


@functools.cache
def learner(config):
    """The model of a file, and its loss and gradient, compiled once for all files."""
    model = official.earthformer_from_config(
        json.loads(config), dtype=jnp.float64, param_dtype=jnp.float64
    )

    def loss(params, x, y):
        return jnp.mean((model.apply({"params": params}, x) - y) ** 2)

    return model, jax.jit(jax.value_and_grad(loss))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x_train_steps_clip", "x_train_steps_noclip"])
def test_three_steps_of_the_reference(name):
    data = golden_files.load(name)
    meta = data["meta"]
    before = golden_files.group(data, "param")
    expected = golden_files.group(data, "param_after_3_steps")
    with jax.enable_x64(True):
        model, loss_and_gradient = learner(json.dumps(data["config"]))
        params = official.params_from_state_dict(before, model)["params"]
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
        tx = optimizer.adamw(
            1e-3,
            weight_decay=meta["weight_decay"],
            clip_norm=meta["clip_grad_norm"] or 0,
        )
        opt_state = tx.init(params)

        @jax.jit
        def update(params, opt_state, grads):
            updates, opt_state = tx.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        losses, norms = [], []
        for x, y in zip(data["input/x"], data["input/y"], strict=True):
            x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
            loss, grads = loss_and_gradient(params, x, y)
            losses.append(float(loss))
            norms.append(float(optax.tree.norm(grads)))
            params, opt_state = update(params, opt_state, grads)
        after = official.state_dict_from_params({"params": params}, model)
        after = {k: np.asarray(v, np.float64) for k, v in after.items()}

    np.testing.assert_allclose(losses, data["output/loss"], rtol=1e-9)
    np.testing.assert_allclose(norms, data["output/grad_norm_before_clip"], rtol=1e-8)
    errors = {k: np.max(np.abs(after[k] - v)) for k, v in expected.items()}
    worst = max(errors, key=errors.get)
    assert errors[worst] < 1e-7, worst  # found: 6e-8, the rounding of the export
    for unused in meta["params_without_grad"]:
        np.testing.assert_array_equal(after[unused], before[unused])


AXIAL = dict(
    enc_attn_patterns="axial",
    dec_self_attn_patterns="axial",
    dec_cross_attn_patterns="cross_1x1",
    z_init_method="zeros",
    padding_type="zeros",
    ffn_activation="gelu",
    use_dec_self_global=False,
    use_dec_cross_global=False,
    use_global_vector_ffn=False,
    use_global_self_attn=True,
    separate_global_qkv=True,
)
RELEASED = {
    "sevir": AXIAL
    | dict(
        input_shape=(13, 384, 384, 1),
        target_shape=(12, 384, 384, 1),
        base_units=128,
        enc_depth=(1, 1),
        dec_depth=(1, 1),
        num_global_vectors=8,
        initial_downsample_type="stack_conv",
        initial_downsample_stack_conv_num_layers=3,
        initial_downsample_stack_conv_dim_list=(16, 64, 128),
        initial_downsample_stack_conv_downscale_list=(3, 2, 2),
        initial_downsample_stack_conv_num_conv_list=(2, 2, 2),
        pos_embed_type="t+h+w",
    ),
    "enso": AXIAL
    | dict(
        input_shape=(12, 24, 48, 1),
        target_shape=(14, 24, 48, 1),
        base_units=64,
        enc_depth=(1, 1),
        dec_depth=(1, 1),
        num_global_vectors=0,
        initial_downsample_type="conv",
        initial_downsample_scale=(1, 1, 2),
        initial_downsample_conv_layers=2,
        final_upsample_conv_layers=1,
        pos_embed_type="t+h+w",
    ),
    "nbody": AXIAL
    | dict(
        input_shape=(10, 64, 64, 1),
        target_shape=(10, 64, 64, 1),
        base_units=64,
        enc_depth=(4, 4),
        dec_depth=(4, 4),
        num_global_vectors=0,
        initial_downsample_type="conv",
        initial_downsample_scale=(1, 2, 2),
        initial_downsample_conv_layers=2,
        final_upsample_conv_layers=1,
        pos_embed_type="t+hw",
    ),
}


@pytest.mark.parametrize("name", RELEASED)
def test_decay_of_the_released_models(name):
    expected = json.loads(str(golden_files.load("x_official_param_lists")["json"]))
    expected = expected[name]
    model = official.earthformer_from_config(RELEASED[name])
    inputs = jax.ShapeDtypeStruct((1, *model.input_shape), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), inputs)["params"]
    mask = jax.tree.map(
        lambda param, decays: np.full(param.shape, decays, np.float32),
        dict(params),
        optimizer.decay_mask(params),
    )
    exported = official.state_dict_from_params({"params": mask}, model)
    found = {k: v for k, v in exported.items() if not k.endswith("position_index")}
    shapes = dict(zip(expected["names"], map(tuple, expected["shapes"]), strict=True))
    decays = dict(zip(expected["names"], expected["decay"], strict=True))
    assert {k: v.shape for k, v in found.items()} == shapes
    assert {k: bool(v.flat[0]) for k, v in found.items()} == decays


def test_decay_of_a_small_model_of_the_reference():
    data = golden_files.load("x_train_steps_clip")
    model = official.earthformer_from_config(data["config"])
    params = official.params_from_state_dict(golden_files.group(data, "param"), model)
    mask = jax.tree.map(
        lambda param, decays: np.full(param.shape, decays, np.float32),
        params["params"],
        optimizer.decay_mask(params["params"]),
    )
    exported = official.state_dict_from_params({"params": mask}, model)
    decayed = {k for k, v in exported.items() if v.flat[0] == 1}
    assert set(data["meta"]["decay_params"]) <= decayed
    assert not decayed & set(data["meta"]["no_decay_params"])
