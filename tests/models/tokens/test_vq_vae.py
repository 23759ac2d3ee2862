"""The VQ-VAE: shapes, causality, straight-through gradient, what it sows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.models import create_model

SHAPE = (4, 8, 8, 2)
SMALL = dict(codebook_size=8, code_width=3, features=8, blocks=1, factor=2)
FRAMES = jax.random.normal(jax.random.key(0), (2, *SHAPE))
RNGS = {"sampling": jax.random.key(1)}

compiled = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def make(shape=SHAPE, **options):
    model = create_model("vq_vae", shape, shape, **SMALL | options)
    return model, compiled(model.init)(jax.random.key(0), jnp.zeros((1, *shape)))


@functools.cache
def method(model, name="__call__"):
    return compiled(functools.partial(model.apply, method=name))


@pytest.fixture(scope="module")
def small():
    return make()


@pytest.mark.parametrize("factor, plane", [(2, (5, 4)), (4, (3, 2)), (8, (2, 1))])
def test_any_plane_and_any_number_of_frames(factor, plane):
    shape = (3, 9, 7, 1)
    model = create_model("vq_vae", shape, shape, **SMALL | dict(factor=factor))
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, *shape)))

    def shape_of(name, x):
        apply = functools.partial(model.apply, method=name)
        return jax.eval_shape(apply, variables, x)

    frames = jnp.ones((2, 5, 9, 7, 1))
    codes = shape_of("encode", frames)
    assert codes.shape == (2, 5, *plane) and codes.dtype == jnp.int32
    restored = shape_of("decode", codes)
    assert restored.shape == frames.shape and restored.dtype == jnp.float32


def test_the_restored_frames_are_those_of_the_codes(small):
    model, variables = small
    codes = method(model, "encode")(variables, FRAMES)
    restored = method(model, "decode")(variables, codes)
    np.testing.assert_allclose(method(model)(variables, FRAMES), restored, atol=1e-5)
    assert 0 <= codes.min() and codes.max() < 8 and len(np.unique(codes)) > 1


def test_no_frame_depends_on_a_later_one(small):
    model, variables = small
    network = lambda x: model.bind(variables)._encoded(x)  # noqa: E731
    back = lambda x: model.bind(variables)._restored(x)  # noqa: E731
    codes = jax.eval_shape(network, FRAMES)
    for function, shape in ((network, FRAMES.shape), (back, codes.shape)):
        x = jax.random.normal(jax.random.key(2), (1, *shape[1:]))

        @compiled
        def gradient(t, x, function=function):
            return jax.grad(lambda x: jnp.sum(jnp.sin(function(x)[:, t])))(x)

        for t in range(SHAPE[0]):
            there = np.any(np.asarray(gradient(t, x)), axis=(0, 2, 3, 4))
            assert not there[t + 1 :].any() and there[max(t - 1, 0) : t + 1].all()


def test_codes_of_the_first_frames_are_those_of_the_shorter_sequence(small):
    model, variables = small
    codes = method(model, "encode")(variables, FRAMES)
    first = method(model, "encode")(variables, FRAMES[:, :2])
    np.testing.assert_array_equal(first, codes[:, :2])
    frames = method(model, "decode")(variables, codes)
    first = method(model, "decode")(variables, codes[:, :2])
    np.testing.assert_allclose(first, frames[:, :2], atol=1e-6)


def test_the_gradient_goes_straight_through_the_codes(small):
    model, variables = small

    def loss(params, train):
        restored, sown = model.apply(
            {**variables, "params": params},
            FRAMES,
            train=train,
            rngs=RNGS,
            mutable=["losses", "batch_stats"],
        )
        (term,) = sown["losses"]["commitment"]
        return jnp.mean(jnp.square(restored - FRAMES)) + term, sown

    step = compiled(
        jax.value_and_grad(functools.partial(loss, train=True), has_aux=True)
    )
    (_, sown), gradient = step(variables["params"])
    assert all(np.any(x) for x in jax.tree.leaves(gradient))
    share = sown["batch_stats"]["codebook"]["share"]
    assert not np.array_equal(share, variables["batch_stats"]["codebook"]["share"])
    with pytest.raises(KeyError, match="losses"):  # a forecast learns nothing
        jax.eval_shape(functools.partial(loss, train=False), variables["params"])


def test_usage_and_perplexity_are_sown(small):
    model, variables = small
    apply = compiled(functools.partial(model.apply, mutable="intermediates"))
    _, sown = apply(variables, FRAMES)
    codes = np.asarray(method(model, "encode")(variables, FRAMES))
    count = np.bincount(codes.ravel(), minlength=8)
    share = count[count > 0] / codes.size
    ((usage,), (perplexity,)) = (
        sown["intermediates"][k] for k in ("usage", "perplexity")
    )
    assert usage == len(share) / 8
    np.testing.assert_allclose(
        perplexity, np.exp(-(share * np.log(share)).sum()), rtol=1e-5
    )


def test_bfloat16_is_near():
    model, variables = make()
    low, _ = make(dtype="bfloat16")
    codes = method(model, "encode")(variables, FRAMES)
    want = method(model, "decode")(variables, codes)
    have = method(low, "decode")(variables, codes)
    assert have.dtype == jnp.float32
    np.testing.assert_allclose(have, want, atol=0.05 * float(jnp.abs(want).max()))


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(factor=3), "factor=3: expected 2, 4 or 8"),
        (dict(codebook_size=1), "codebook_size=1: expected a whole number of at least"),
        (dict(decay=1.0), "decay=1.0: expected a number of at least 0 and less than 1"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(ValueError, match=message):
        create_model("vq_vae", SHAPE, SHAPE, **options)


def test_shapes_that_do_not_fit(small):
    with pytest.raises(ValueError, match="a VQ-VAE restores its inputs"):
        create_model("vq_vae", SHAPE, (3, *SHAPE[1:]))
    model, variables = small
    with pytest.raises(ValueError, match=r"frames has shape \(1, 4, 8, 8, 1\)"):
        model.apply(variables, jnp.ones((1, 4, 8, 8, 1)), method="encode")
    with pytest.raises(ValueError, match="codes is of type float32: expected integer"):
        model.apply(variables, jnp.ones((1, 4, 4, 4)), method="decode")
