"""Parameter counts, names and round trips of the official weights."""

import functools

import jax
import numpy as np
import pytest

from earthformer_jax.interop import official
from tests import golden_files

NBODY = dict(
    input_shape=(10, 64, 64, 1),
    target_shape=(10, 64, 64, 1),
    base_units=64,
    enc_depth=(4, 4),
    dec_depth=(4, 4),
    self_pattern="axial",
    cross_self_pattern="axial",
    cross_pattern="cross_1x1",
    num_global_vectors=0,
    use_dec_self_global=False,
    use_dec_cross_global=False,
    use_global_vector_ffn=False,
    initial_downsample_type="conv",
    initial_downsample_scale=2,
    initial_downsample_conv_layers=2,
    final_upsample_conv_layers=1,
    ffn_activation="gelu",
    padding_type="zeros",
    pos_embed_type="t+h+w",
    z_init_method="zeros",
    checkpoint_level=0,
)
GLOBAL = dict(num_global_vectors=8, use_global_self_attn=True)
ENSO = NBODY | dict(
    input_shape=(12, 24, 48, 1),
    target_shape=(14, 24, 48, 1),
    initial_downsample_scale=(1, 1, 2),
)
SEVIR = NBODY | dict(
    input_shape=(13, 384, 384, 1),
    target_shape=(12, 384, 384, 1),
    base_units=128,
    initial_downsample_type="stack_conv",
    initial_downsample_stack_conv_num_layers=3,
    initial_downsample_stack_conv_dim_list=(16, 64, 128),
    initial_downsample_stack_conv_downscale_list=(3, 2, 2),
    initial_downsample_stack_conv_num_conv_list=(2, 2, 2),
)
SEVIR_LR = SEVIR | dict(
    input_shape=(7, 128, 128, 1),
    target_shape=(6, 128, 128, 1),
    base_units=64,
    enc_depth=(1, 1),
    dec_depth=(1, 1),
    initial_downsample_stack_conv_dim_list=(4, 16, 64),
    initial_downsample_stack_conv_downscale_list=(1, 2, 2),
)
FULL_RESOLUTION = dict(downsample=1, block_units=(64, 128))


def depth(*blocks):
    return dict(enc_depth=blocks, dec_depth=blocks)


TABLE_4 = {
    "axial": (6_611_997, 7_610_781),
    "divided_st": (5_697_149, 6_365_949),
    "video_swin_2x8": (5_660_861, 6_329_661),
    "video_swin_10x8": (5_891_261, 6_560_061),
    "spatial_lg_2": (6_609_565, 7_608_349),
    "spatial_lg_4": (6_612_125, 7_610_909),
    "axial_space_dilate_2": (8_593_373, 10_252_125),
    "axial_space_dilate_4": (8_591_837, 10_250_589),
}
TABLE_3 = [
    (depth(1, 1) | FULL_RESOLUTION, 1_383_749),
    (depth(2, 2) | FULL_RESOLUTION, 3_120_141),
    (depth(3, 3) | FULL_RESOLUTION, 4_856_533),
    (depth(4, 4) | FULL_RESOLUTION, 6_592_925),
    (depth(1, 1), 1_404_357),
    (depth(2, 2), 3_140_237),
    (depth(3, 3), 4_876_117),
    (depth(4, 4), 6_611_997),
]
FULL_MODELS = [
    (SEVIR | depth(1, 1), 6_164_573),
    (SEVIR | depth(2, 2), 13_075_029),
    (SEVIR | depth(2, 2) | GLOBAL, 15_082_069),
    (SEVIR_LR, 1_505_069),
    (ENSO, 6_601_293),
    (ENSO | GLOBAL, 7_600_077),
]


def abstract_params(config):
    model = official.earthformer_from_config(config)
    inputs = jax.ShapeDtypeStruct((1, *model.input_shape), np.float32)
    return model, jax.eval_shape(model.init, jax.random.key(0), inputs)["params"]


def count(config) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(abstract_params(config)[1]))


@functools.cache
def size_of_encoder_blocks(pattern, with_global):
    """Parameters of one block of each level of the encoder."""
    config = NBODY | depth(1, 1) | dict(self_pattern=pattern)
    encoder = abstract_params(config | (GLOBAL if with_global else {}))[1]["encoder"]
    blocks = {name: x for name, x in encoder.items() if name.startswith("block_")}
    return sum(leaf.size for leaf in jax.tree.leaves(blocks))


@pytest.mark.slow
@pytest.mark.parametrize("pattern", TABLE_4)
def test_parameters_of_table_4(pattern):
    """Only the encoder's pattern varies, which has four equal blocks at each level."""
    if pattern == "axial":  # without global vectors the last row of table 3
        assert count(NBODY | GLOBAL) == TABLE_4["axial"][1]
        return
    for with_global in (False, True):
        block, axial = (
            size_of_encoder_blocks(x, with_global) for x in (pattern, "axial")
        )
        more = TABLE_4[pattern][with_global] - TABLE_4["axial"][with_global]
        assert 4 * (block - axial) == more


@pytest.mark.parametrize(("changes", "want"), TABLE_3)
def test_parameters_of_table_3(changes, want):
    assert count(NBODY | changes) == want


@pytest.mark.slow
@pytest.mark.parametrize(("config", "want"), FULL_MODELS)
def test_parameters_of_full_models(config, want):
    assert count(config) == want


@pytest.fixture(scope="module")
def small():
    """A model with all kinds of parameters, its variables and stored state dict."""
    data = golden_files.load("e_model_explicit_cuboids_per_level")
    model = official.earthformer_from_config(data["config"])
    return model, golden_files.group(data, "param"), golden_files.group(data, "buffer")


def test_round_trip_with_buffers(small):
    model, params, buffers = small
    variables = official.params_from_state_dict(params, model)
    back = official.state_dict_from_params(variables, model)
    assert set(back) == set(params) | set(buffers)
    for name, array in (params | buffers).items():
        np.testing.assert_array_equal(back[name], array)


def test_prefix_and_buffers_are_accepted(small):
    model, params, buffers = small
    prefixed = {f"torch_nn_module.{k}": v for k, v in (params | buffers).items()}
    variables = official.params_from_state_dict(prefixed, model)
    want = official.params_from_state_dict(params, model)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), variables, want))


def test_state_dict_of_another_model(small):
    model, params, _ = small
    broken = dict(params)
    broken["decoder.extra.weight"] = broken.pop("z_proj.weight")
    broken["dec_final_proj.weight"] = np.zeros((3, 8), np.float32)
    with pytest.raises(ValueError) as error:
        official.params_from_state_dict(broken, model)
    message = str(error.value)
    assert "missing (1): z_proj.weight" in message
    assert "unexpected (1): decoder.extra.weight" in message
    assert "dec_final_proj.weight has shape (3, 8), the model needs (1, 8)" in message


def test_files(small, tmp_path):
    from safetensors.numpy import save_file

    _, params, _ = small
    np.savez(tmp_path / "weights.npz", **params)
    save_file(
        {k: np.ascontiguousarray(v) for k, v in params.items()},
        tmp_path / "weights.safetensors",
    )
    for name in ("weights.npz", "weights.safetensors"):
        read = official.read_state_dict(tmp_path / name)
        assert set(read) == set(params)
        np.testing.assert_array_equal(read["z_proj.weight"], params["z_proj.weight"])


def test_torch_file(small, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model, params, _ = small
    tensors = {k: torch.from_numpy(v) for k, v in params.items()}
    torch.save({"state_dict": tensors}, tmp_path / "weights.ckpt")
    read = official.read_state_dict(tmp_path / "weights.ckpt")
    official.params_from_state_dict(read, model)


def test_unreadable_files(tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"PK half a file")
    with pytest.raises(ValueError, match="not a readable .npz file"):
        official.read_state_dict(tmp_path / "weights.npz")
    (tmp_path / "weights.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        official.read_state_dict(tmp_path / "weights.safetensors")
    with pytest.raises(FileNotFoundError, match="no weight file"):
        official.read_state_dict(tmp_path / "absent.npz")
    (tmp_path / "weights.h5").write_bytes(b"")
    with pytest.raises(ValueError, match="weights are read from .npz"):
        official.read_state_dict(tmp_path / "weights.h5")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(enc_atn_patterns="axial"), "did you mean enc_attn_patterns"),
        (dict(self_pattern="axal"), "unknown self-attention pattern 'axal'"),
        (dict(cross_pattern="cross_3x3"), "unknown cross-attention pattern"),
        (dict(target_shape=(0, 64, 64, 1)), "four whole numbers"),
        (dict(target_shape=(10, 32, 64, 1)), "same height and width"),
        (dict(dec_depth=(4, 4, 4)), "one entry per level"),
        (dict(num_heads=5), "num_heads must divide"),
        (dict(base_units=24), "multiple of 16"),
        (dict(global_dim_ratio=2, **GLOBAL), "separate_global_qkv"),
        (dict(attn_linear_init_mode="2"), "must be '0' or '1'"),
        (dict(downsample_type="conv"), "can only be 'patch_merge'"),
        (dict(padding_type="reflect"), "padding='reflect': expected"),
    ],
)
def test_impossible_options(changes, message):
    with pytest.raises(ValueError, match=message):
        abstract_params(NBODY | changes)


def test_missing_shape():
    with pytest.raises(ValueError, match="lacks target_shape"):
        official.earthformer_from_config(dict(input_shape=(4, 8, 8, 1)))
