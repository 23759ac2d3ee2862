"""Codes one after the other: what they may depend on, and how they are generated."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.layers.feed_forward import FeedForwardOptions
from earthformer_jax.models.autoregressive.code_forecaster import CodeForecaster
from earthformer_jax.models.autoregressive.decoder import rows_later
from earthformer_jax.models.autoregressive.generation import choose
from earthformer_jax.models.earthformer.options import AttentionOptions, BlockOptions
from earthformer_jax.ops import cuboid, patterns

compiled = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)
FRAMES, CODES = 3, 5


def make(pattern, plane=(4, 4), features=(8, 8), padding="ignore", **options):
    levels = len(features)
    return CodeForecaster(
        code_shape=(2, *plane),
        frames=FRAMES,
        codebook_size=CODES,
        features=features,
        factor=2,
        enc_depth=(1,) * levels,
        enc_patterns=("full",) * levels,
        dec_depth=(1,) * levels,
        down_depth=1,
        self_patterns=pattern if isinstance(pattern, tuple) else (pattern,) * levels,
        cross_patterns=("cross_1x1",) * levels,
        num_global_vectors=1,
        options=BlockOptions(
            AttentionOptions(num_heads=2, padding=padding, **options),
            FeedForwardOptions(expansion=1, **options),
        ),
        pos_embed="t+h+w",
        temperature=1.0,
        top_k=0,
    )


def codes_of(seed, *shape):
    return np.random.default_rng(seed).integers(0, CODES, shape, np.int32)


def variables_of(model, known):
    """Random parameters of the size of real ones; also where they start as zero."""
    following = jnp.zeros((1, FRAMES, *known.shape[2:]), jnp.int32)
    like = jax.eval_shape(model.init, jax.random.key(0), known[:1], following)
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: jnp.asarray(0.3 * random.normal(size=x.shape), x.dtype), like
    )


def dependence(pattern, plane=(4, 4), features=(8, 8)):
    """bool `[p, p]`: whether the Jacobian of logits (row) by code (column) is not 0."""
    model = make(pattern, plane, features)
    variables = variables_of(model, codes_of(0, 1, 2, *plane))
    random = np.random.default_rng(1)
    mix = random.normal(size=CODES)
    memories = [
        random.normal(size=(1, 2, *grid[1:], c))
        for grid, c in zip(model.grids, features, strict=True)
    ]

    @compiled
    @jax.jacrev
    def slopes(embedded):
        return (model.bind(variables).decoder(embedded, memories) @ mix).ravel()

    embedded = random.normal(size=(1, *model.grids[0], features[0])).astype(np.float32)
    jacobian = np.asarray(slopes(embedded))
    size = len(jacobian)
    return np.any(jacobian.reshape(size, size, -1), axis=-1)


def check_causal(depends):
    size = len(depends)
    assert not np.triu(depends).any(), "a code sees itself or a later one"
    assert depends[np.arange(1, size), np.arange(size - 1)].all()


def test_no_code_depends_on_a_later_one():
    depends = dependence(("divided_st", "full"))
    check_causal(depends)
    assert depends[32:, :16].all()  # every cell of the frame before the last is seen


# The masks of every pattern are tested in tests/ops/test_cuboid.py.
KINDS = ("axial", "video_swin_2x2", "spatial_lg_2", "axial_space_dilate_2")


@pytest.mark.slow
@pytest.mark.parametrize("pattern", KINDS)
def test_no_code_depends_on_a_later_one_in_any_kind_of_pattern(pattern):
    """One block sees what its masks allow one after the other, and no more."""
    depends = dependence(pattern, (4, 8), (4,))
    check_causal(depends)
    grid, seen = (FRAMES, 4, 8), np.eye(len(depends), dtype=int)
    for spec in (s.fit(grid) for s in patterns.self_attention(pattern, grid)):
        order = cuboid.raster_order(grid, spec, "ignore")
        mask = cuboid.causal_mask(grid, spec, "ignore")
        layer = np.zeros_like(seen)
        for n, cells in enumerate(order):
            inside = cells >= 0
            allowed = (
                np.tri(inside.sum()) if mask is None else mask[n][inside][:, inside]
            )
            layer[np.ix_(cells[inside], cells[inside])] = allowed
        seen = layer @ seen
    # A cell holds the code before it.
    np.testing.assert_array_equal(depends[:, :-1], seen[:, 1:] > 0)


@pytest.mark.slow
def test_a_code_sees_all_before_it_with_full_attention():
    depends = dependence("full", (2, 3))
    size = len(depends)
    assert size == FRAMES * 2 * 4  # enlarged to whole cells of the coarse level
    np.testing.assert_array_equal(depends, np.tri(size, k=-1, dtype=bool))


@pytest.mark.parametrize(
    "pattern, plane, features, padding",
    [
        ("full", (3, 5), (8, 8), "ignore"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("axial", (3, 5), (8, 16), "ignore"),
                ("video_swin_2x2", (4, 6), (8,), "zeros"),
                ("spatial_lg_2", (5, 3), (8,), "zeros"),
                ("axial_space_dilate_2", (8, 8), (8,), "ignore"),
            )
        ),
    ],
)
def test_generation_is_the_whole_decoder_step_by_step(
    pattern, plane, features, padding
):
    """Codes that are drawn, and the logits of each, as computed from all at once."""
    model = make(pattern, plane, features, padding)
    known = codes_of(3, 2, 2, *plane)
    variables = variables_of(model, known)
    noise = np.random.default_rng(4).uniform(size=(2, FRAMES, *plane))

    @compiled
    def run(variables, noise):
        codes, logits = model.apply(variables, known, method="generator")(noise)
        return codes, logits, model.apply(variables, known, codes)

    codes, logits, want = run(variables, noise.astype(np.float32))
    assert codes.shape == noise.shape and len(np.unique(codes)) == CODES
    np.testing.assert_allclose(logits, want, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(codes, choose(want, jnp.asarray(noise, jnp.float32)))


def test_rows_move_past_the_end_of_a_frame():
    x = jnp.arange(6.0).reshape(1, 3, 2, 1, 1)
    np.testing.assert_array_equal(rows_later(x, 1).ravel(), [0, 0, 1, 2, 3, 4])


class TestChoose:
    LOGITS = jnp.log(jnp.asarray([0.1, 0.0, 0.6, 0.3]))

    def test_the_most_probable(self):
        assert choose(self.LOGITS) == 2
        assert choose(jnp.asarray([1.0, 3.0, 3.0])) == 1

    @pytest.mark.parametrize(
        "options, want",
        [
            ({}, [0.1, 0, 0.6, 0.3]),
            (dict(temperature=0.5), np.array([1, 0, 36, 9]) / 46),
            (dict(top_k=2), [0, 0, 2 / 3, 1 / 3]),
            (dict(top_k=1), [0, 0, 1, 0]),
            (dict(top_k=4), [0.1, 0, 0.6, 0.3]),
        ],
    )
    def test_frequencies(self, options, want):
        noise = (jnp.arange(1000) + 0.5) / 1000
        drawn = choose(jnp.broadcast_to(self.LOGITS, (1000, 4)), noise, **options)
        have = np.bincount(drawn, minlength=4) / 1000
        np.testing.assert_allclose(have, want, atol=2e-3)

    def test_no_code_without_probability(self):
        logits = jnp.asarray([-jnp.inf, 0.3, 2.1, -jnp.inf])
        ends = jnp.asarray([0.0, np.nextafter(np.float32(1), np.float32(0))])
        drawn = choose(jnp.broadcast_to(logits, (2, 4)), ends)
        np.testing.assert_array_equal(drawn, [1, 2])
