"""The pure functions against the official implementation's, case by case."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops import attention, cuboid, patterns, resample
from tests import golden_files

DATA = golden_files.load("a_pure_functions")


def cases(function):
    numbers = sorted({k.split("/")[1] for k in DATA if k.startswith(f"{function}/")})
    return [pytest.param(f"{function}/{n}", id=f"{function}-{n}") for n in numbers]


def read(case):
    config = json.loads(str(DATA[f"{case}/config"]))
    return config, lambda key: DATA[f"{case}/{key}"]


@pytest.mark.parametrize("case", cases("cuboid_reorder"))
def test_cut_and_uncut(case):
    config, array = read(case)
    size, strategy = tuple(config["cuboid_size"]), "".join(config["strategy"])
    data = array("input/data")
    cuboids = cuboid.cut(data, size, strategy)
    np.testing.assert_array_equal(cuboids, array("output/reordered"))
    back = cuboid.uncut(cuboids, size, strategy, data.shape[1:4])
    np.testing.assert_array_equal(back, data)


@pytest.mark.parametrize("case", cases("generalize_padding"))
def test_padding(case):
    config, array = read(case)
    x, padding = array("input/x"), config["padding_type"]
    front = config["t_pad_left"]
    extra = (config["pad_t"], config["pad_h"], config["pad_w"])
    grid = tuple(g + e for g, e in zip(x.shape[1:4], extra, strict=True))
    padded = resample.pad_grid(jnp.asarray(x), grid, padding, time_at_front=front)
    np.testing.assert_array_equal(padded, array("output/padded"))
    back = resample.unpad_grid(padded, x.shape[1:4], padding)
    np.testing.assert_array_equal(back, array("output/padded_then_unpadded"))
    other = resample.unpad_grid(
        jnp.asarray(array("input/to_unpad")), x.shape[1:4], padding
    )
    np.testing.assert_array_equal(other, array("output/unpadded"))


@pytest.mark.parametrize("case", cases("update_cuboid_size_shift_size"))
def test_fit(case):
    config, array = read(case)
    spec = cuboid.CuboidSpec(
        config["cuboid_size"], config["strategy"], config["shift_size"]
    ).fit(config["data_shape"])
    assert spec.size == tuple(array("output/cuboid_size"))
    assert spec.shift == tuple(array("output/shift_size"))


@pytest.mark.parametrize("case", cases("self_attention_mask"))
def test_self_attention_mask(case):
    config, array = read(case)
    spec = cuboid.CuboidSpec(
        config["cuboid_size"], config["strategy"], config["shift_size"]
    )
    grid = tuple(config["data_shape"])
    mask = cuboid.attention_mask(grid, spec, config["padding_type"])
    want = array("output/mask").astype(bool)
    np.testing.assert_array_equal(np.ones_like(want) if mask is None else mask, want)


@pytest.mark.parametrize("case", cases("cross_attention_mask"))
def test_cross_attention_mask(case):
    config, array = read(case)
    spec = patterns.CrossSpec(
        config["cuboid_hw"],
        config["strategy"],
        config["shift_hw"],
        config["n_temporal"],
    )
    grid = (config["T_x"], config["H"], config["W"])
    memory_grid = (config["T_mem"], config["H"], config["W"])
    mask = cuboid.cross_attention_mask(
        grid,
        spec.cuboid(grid),
        memory_grid,
        spec.cuboid(memory_grid),
        config["padding_type"],
    )
    want = array("output/mask").astype(bool)
    np.testing.assert_array_equal(np.ones_like(want) if mask is None else mask, want)


@pytest.mark.parametrize("case", cases("masked_softmax"))
def test_masked_softmax(case):
    """Attention over one-hot values returns the weights themselves."""
    config, array = read(case)
    scores = array("input/att_score")
    mask = array("input/mask").astype(bool) if config["has_mask"] else None
    b, a, q, s = scores.shape
    zeros = jnp.zeros((b, 1, q, a, 1))
    values = jnp.broadcast_to(jnp.eye(s)[None, None, :, None], (b, 1, s, a, s))
    for i in range(b):  # a bias has no batch axis
        weights = attention.attend(
            zeros[i : i + 1],
            jnp.zeros((1, 1, s, a, 1)),
            values[i : i + 1],
            scale=1.0,
            bias=jnp.asarray(scores[i]),
            mask=None if mask is None else np.broadcast_to(mask, (q, s))[None],
        )
        want = array("output/out")[i]
        np.testing.assert_allclose(weights[0, 0].swapaxes(0, 1), want, atol=1e-6)


@pytest.mark.parametrize("case", cases("self_relative_position_index"))
def test_self_relative_position_index(case):
    config, array = read(case)
    size = tuple(config["cuboid_size"])
    index = attention.relative_position_index(size, size, size)
    np.testing.assert_array_equal(index, array("output/index"))
    assert attention.table_rows(size) == array("output/table_rows")


@pytest.mark.parametrize("case", cases("cross_relative_position_index"))
def test_cross_relative_position_index(case):
    config, array = read(case)
    size = (config["max_temporal_relative"], *config["cuboid_hw"])
    index = attention.relative_position_index(size, size, size)
    np.testing.assert_array_equal(index, array("output/index"))
    assert attention.table_rows(size) == array("output/table_rows")


@pytest.mark.parametrize("case", cases("nearest_interpolate_1d"))
def test_nearest_index(case):
    config, array = read(case)
    index = resample.nearest_index(config["in_size"], config["out_size"])
    np.testing.assert_array_equal(index, array("output/source_index"))


def test_self_patterns():
    for shape, named in json.loads(str(DATA["self_patterns/json"])).items():
        grid = tuple(json.loads(shape)[:3])
        for name, want in named.items():
            got = patterns.self_attention(name, grid)
            assert [list(s.size) for s in got] == want["cuboid_size"], (name, grid)
            assert [list(s.strategy) for s in got] == want["strategy"], (name, grid)
            assert [list(s.shift) for s in got] == want["shift_size"], (name, grid)


def test_cross_patterns():
    for shape, named in json.loads(str(DATA["cross_patterns/json"])).items():
        grid = tuple(json.loads(shape)[:3])
        assert set(named) <= set(patterns.cross_attention_names())
        for name, want in named.items():
            got = patterns.cross_attention(name, grid)
            assert [list(s.size) for s in got] == want["cuboid_hw"]
            assert [list(s.shift) for s in got] == want["shift_hw"]
            assert [list(s.strategy) for s in got] == want["strategy"]
            assert [s.n_temporal for s in got] == want["n_temporal"]


def test_merged_grid():
    for record in json.loads(str(DATA["misc/json"])):
        if record["fn"] == "patch_merge_get_out_shape":
            grid = resample.merged_grid(record["data_shape"][:3], record["downsample"])
            assert [*grid, record["out_dim"]] == record["out"]
