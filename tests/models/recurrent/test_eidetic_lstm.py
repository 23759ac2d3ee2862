"""The eidetic 3D LSTM: TensorFlow's numbers, one position by hand, options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.interop import tf_e3d_lstm
from earthformer_jax.models.recurrent.eidetic_lstm import EideticLSTM
from tests import golden_files

ARGUMENTS = ("inputs", "hidden", "cell", "global_memory", "eidetic_cell")
RESULTS = ("output", "new_cell", "global_memory")


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def drawn(tree, scale=0.3):
    leaves, structure = jax.tree.flatten(tree)
    leaves = [scale * draw(*x.shape, seed=i) for i, x in enumerate(leaves)]
    return structure.unflatten(leaves)


def largest(have, want):
    """Largest difference relative to the largest value."""
    have, want = jax.tree.leaves(have), jax.tree.leaves(want)
    scale = max(np.abs(w).max() for w in want)
    return max(np.abs(h - w).max() for h, w in zip(have, want, strict=True)) / scale


@pytest.mark.parametrize("kind", ["official", "fixedmem"])
def test_the_tensorflow_cell(kind, record_property):
    data = golden_files.load(f"baselines/e3dlstm_tf_cell_{kind}")
    params = tf_e3d_lstm.eidetic_lstm_params(golden_files.group(data, "param"), "e3d0/")
    layer = EideticLSTM(4, update_memory=kind == "fixedmem")
    arguments = [data[f"input/{name}"] for name in ARGUMENTS]
    cotangent = tuple(jnp.asarray(data[f"cotangent/{name}"]) for name in RESULTS)

    @jax.jit
    def compute(params, *arguments):
        out, pull = jax.vjp(
            lambda p, *a: layer.apply({"params": p}, *a), params, *arguments
        )
        return out, pull(cotangent)

    out, grads = compute(params, *arguments)
    error = largest(out, [data[f"output/{name}"] for name in RESULTS])
    record_property(f"golden E3D-LSTM cell {kind} output error", float(error))
    assert error < 1e-5
    stored = golden_files.group(data, "grad")
    want = (
        tf_e3d_lstm.eidetic_lstm_params(golden_files.group(stored, "param"), "e3d0/"),
        *(stored[f"input/{name}"] for name in ARGUMENTS),
    )
    error = largest(grads, want)
    record_property(f"golden E3D-LSTM cell {kind} gradient error", float(error))
    assert error < 1e-4


def test_one_position_by_hand():
    """One frame of one pixel and channel, without norms: equation by equation."""
    layer = EideticLSTM(1, kernel_size=(1, 1, 1), layer_norm=False)
    x, hidden, cell, memory = (draw(1, 1, 1, 1, 1, seed=i) for i in range(4))
    history = jnp.concatenate([0 * cell, cell], axis=1)
    arguments = (x, hidden, cell, memory, history)
    v = drawn(jax.eval_shape(layer.init, jax.random.key(0), *arguments), 0.5)
    have = jax.jit(layer.apply)(v, *arguments)

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    def conv(name, *values):
        p = v["params"][name]
        kernel = np.asarray(p["kernel"], np.float64).reshape(len(values), -1)
        return np.asarray(values) @ kernel + np.asarray(p["bias"])

    x, h, c, m = (float(a.squeeze()) for a in (x, hidden, cell, memory))
    i_h, g_h, r_h, o_h = conv("hidden", h)
    i_x, g_x, r_x, o_x, mi_x, mg_x, mf_x = conv("inputs", x)
    i_m, f_m, g_m, m_m = conv("memory", m)
    weight = np.exp(sigmoid(r_x + r_h) * c)
    recalled = weight * c / (1 + weight)  # the other state of the history is 0
    new_c = c + recalled + sigmoid(i_x + i_h) * np.tanh(g_x + g_h)
    new_m = sigmoid(mf_x + f_m + 1) * np.tanh(m_m)
    new_m += sigmoid(mi_x + i_m) * np.tanh(mg_x + g_m)
    (o_c,), (o_m,) = conv("output_cell", new_c), conv("output_memory", new_m)
    gate = sigmoid(np.tanh(o_x + o_h + o_c + o_m))
    new_h = np.tanh(conv("output", new_c, new_m)[0]) * gate
    np.testing.assert_allclose(
        [float(a.squeeze()) for a in have], [new_h, new_c, new_m], rtol=1e-5
    )


def test_memory_norms_and_types():
    x, state = draw(2, 2, 3, 4, 3), draw(2, 2, 3, 4, 5, seed=1)
    history = draw(2, 4, 3, 4, 5, seed=2)
    arguments = (x, state, state, state, history)
    layer = EideticLSTM(5, kernel_size=(2, 3, 3))
    v = drawn(jax.eval_shape(layer.init, jax.random.key(0), *arguments))
    hidden, cell, memory = jax.jit(layer.apply)(v, *arguments)
    old = jax.jit(layer.clone(update_memory=False).apply)(v, *arguments)
    np.testing.assert_allclose(old[0], hidden, atol=1e-6)
    np.testing.assert_array_equal(old[2], state)
    assert np.abs(memory - state).max() > 0.1

    plain = layer.clone(layer_norm=False)
    shapes = jax.eval_shape(plain.init, jax.random.key(0), *arguments)
    norms = set(v["params"]) - set(shapes["params"])
    assert norms == {"hidden_norm", "inputs_norm", "memory_norm", "cell_norm"}
    assert v["params"]["inputs_norm"]["scale"].shape == (35,)

    low = jax.jit(layer.clone(dtype=jnp.bfloat16).apply)(v, *arguments)
    assert [a.dtype for a in low] == [jnp.bfloat16, jnp.float32, jnp.float32]
    np.testing.assert_allclose(low[1], cell, atol=0.15)


def test_what_is_normalised_is_the_whole_clip():
    """Scaling what the gates see of one example changes nothing, in any example."""
    x, zero = draw(2, 2, 3, 4, 3), jnp.zeros((2, 2, 3, 4, 5))
    layer = EideticLSTM(5, kernel_size=(2, 3, 3))
    v = jax.jit(layer.init)(jax.random.key(0), x, *[zero] * 4)  # biases are zero
    apply = jax.jit(lambda x: layer.apply(v, x, *[zero] * 4))
    scaled = x.at[1].multiply(7)
    for a, b in zip(apply(scaled), apply(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
