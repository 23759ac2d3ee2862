"""Weights that do not fit, or are damaged: which entry, and what was expected."""

import io
import pickle
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save

from earthformer_jax.interop import (
    keras,
    keras_unet,
    tf_e3d_lstm,
    torch_conv_lstm,
    torch_names,
    torch_phydnet,
    torch_predrnn,
)
from earthformer_jax.interop.state_dict_file import as_weight, read_state_dict
from earthformer_jax.models.recurrent.conv_lstm import ConvLSTM

TEMPLATE = {
    "dense": {
        "kernel": jax.ShapeDtypeStruct((2, 3), np.float32),
        "bias": jax.ShapeDtypeStruct((3,), np.float32),
    }
}
RULES = ((r"/kernel$", "/weight"),)
KERNEL, BIAS = np.ones((3, 2), np.float32), np.ones(3, np.float32)
GOOD = {"dense.weight": KERNEL, "dense.bias": BIAS}


def read(**changes):
    state_dict = {k: v for k, v in (GOOD | changes).items() if v is not ...}
    return torch_names.import_tree(state_dict, TEMPLATE, RULES)


def test_good_weights():
    for dtype in (np.float16, np.float32, np.float64, jnp.bfloat16):
        made = read(**{"dense.weight": KERNEL.astype(dtype)})
        assert made["dense"]["kernel"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dense.bias": ...}, r"missing \(1\): dense.bias\n.*the model has biases wh"),
        ({"dense.weight": ...}, r"missing \(1\): dense.weight"),
        ({"dense.more": BIAS}, r"unexpected \(1\): dense.more"),
        ({"other.bias": BIAS}, "the weights have biases where the model has none"),
        ({"dense.weight": ..., "dens.weight": KERNEL}, "is 'dens.weight' meant as"),
        (
            {"dense.weight": KERNEL.T},
            r"shape \(2, 3\), the model needs .* \(is i",
        ),
        (
            {"dense.weight": KERNEL[:2]},
            r"shape \(2, 2\), the model needs \(3, 2\)$",
        ),
        ({"dense.weight": KERNEL[None]}, r"has shape \(1, 3, 2\), the model needs"),
        ({"dense.weight": KERNEL.astype(int)}, "dense.weight is of type int64: exp"),
        ({"dense.weight": KERNEL > 0}, "dense.weight is of type bool"),
        ({"dense.weight": KERNEL.astype(complex)}, "dense.weight is of type complex"),
        ({"dense.weight": KERNEL.astype(str)}, "dense.weight is of type <U"),
        ({"dense.weight": KERNEL * np.nan}, "dense.weight: 6 of 6 numbers are NaN or"),
        ({"dense.bias": np.array([1.0, np.inf, 0])}, "dense.bias: 1 of 3 numbers are"),
        ({"dense.weight": None}, "dense.weight is None: expected an array"),
        ({"dense.weight": "weights"}, "dense.weight is 'weights': expected an array"),
        ({"dense.weight": {"a": 1}}, "dense.weight is {'a': 1}: expected an array"),
        (
            {"dense.weight": [[1.0], [1.0, 2.0]]},
            "dense.weight is not an array of numbers",
        ),
    ],
)
def test_entries(changes, message):
    with pytest.raises(ValueError, match=message):
        read(**changes)


@pytest.mark.parametrize(
    "reader",
    [
        torch_predrnn.predrnn_params,
        torch_phydnet.phydnet_params,
        torch_conv_lstm.encoder_forecaster_params,
        tf_e3d_lstm.e3d_lstm_params,
        keras_unet.unet_params,
        lambda given: torch_names.import_tree(given, TEMPLATE, RULES),
    ],
)
@pytest.mark.parametrize("given", [None, [KERNEL], KERNEL, "weights.pt", {0: KERNEL}])
def test_no_state_dict(reader, given):
    with pytest.raises(ValueError, match=r"expected a mapping from names|is not text"):
        reader(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "weights=None: expected the list"),
        ({"kernel": KERNEL}, "expected the list"),
        ([KERNEL], "two weights, or three with a bias; got 1 arrays"),
        ([KERNEL, None], r"weights\[1\] is None"),
        ([KERNEL, KERNEL], r"has kernel \(kh, kw, c, 4 f\)"),
        ([KERNEL * np.nan, KERNEL], r"weights\[0\]: 6 of 6 numbers are NaN"),
    ],
)
def test_weights_of_keras(given, message):
    with pytest.raises(ValueError, match=message):
        keras.conv_lstm_params(given)


def test_biases_and_peepholes_that_one_side_lacks():
    kernels = [np.ones((1, 1, 2, 12)), np.ones((1, 1, 3, 12))]
    layer, x = ConvLSTM(3, 1), jnp.ones((1, 2, 2, 2, 2))
    without = keras.conv_lstm_params(kernels)
    with_bias = keras.conv_lstm_params([*kernels, np.ones(12)])

    def run(layer, variables):
        return jax.eval_shape(layer.apply, variables, x)

    run(layer, with_bias), run(layer.clone(use_bias=False), without)
    with pytest.raises(ValueError, match="its weights have none: set use_bias=False"):
        run(layer, without)
    with pytest.raises(ValueError, match="this layer has none: set use_bias=True"):
        run(layer.clone(use_bias=False), with_bias)
    peepholes = {"params": with_bias["params"] | {"peephole": np.ones((3, 3))}}
    with pytest.raises(ValueError, match="have a 'peephole', and this layer has none"):
        run(layer, peepholes)
    with pytest.raises(ValueError, match="has a parameter 'peephole', and its weights"):
        run(layer.clone(peephole="channel"), with_bias)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"_conv.bias": np.ones(11)},
            r"has shape \(11,\): expected \(12,\)",
        ),
        ({"_conv.weight": np.ones((5, 12, 1, 1))}, "_conv.bias has shape"),
        ({"_conv.weight": np.ones((12, 2, 1, 1))}, r"_conv.weight .* \(4 f, c . f, kh"),
    ],
)
def test_convolutions_of_torch(changes, message):
    good = {"_conv.weight": np.ones((12, 5, 1, 1)), "_conv.bias": np.ones(12)}
    assert torch_conv_lstm.conv_lstm_params(good)["kernel"].shape == (1, 1, 2, 12)
    with pytest.raises(ValueError, match=message):
        torch_conv_lstm.conv_lstm_params(good | changes)


def test_half_precision_is_a_number():
    assert as_weight("w", jnp.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16


class Code:
    """Something that is run when it is unpickled."""

    def __reduce__(self):
        return (print, ("unpickled",))


def npz(compressed=False, **arrays):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def npy():
    file = io.BytesIO()
    np.save(file, KERNEL)
    return file.getvalue()


def flipped(content, share=0.5):
    content = bytearray(content)
    content[int(share * len(content))] ^= 0xFF
    return bytes(content)


BIG = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.npz", b""),
        ("cut.npz", npz(a=BIG)[:500]),
        ("end.npz", npz(a=BIG)[:-30]),
        ("flipped.npz", flipped(npz(a=BIG))),
        ("compressed.npz", flipped(npz(compressed=True, a=BIG))),
        ("one.npz", npy()),
        ("pickle.npz", pickle.dumps({"a": KERNEL})),
        ("objects.npz", npz(a=np.array([{"code": 1}], object))),
        ("code.safetensors", pickle.dumps(Code())),
        ("empty.safetensors", b""),
        ("cut.safetensors", save({"a": BIG})[:500]),
        ("header.safetensors", flipped(save({"a": BIG}), 0.001)),
        ("pickle.safetensors", pickle.dumps({"a": KERNEL})),
    ],
)
def test_damaged_files(tmp_path, capsys, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is not a readable"):
        read_state_dict(tmp_path / name)
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.UnpicklingError("Weights only load failed: print"), "alone: Weights o"),
        (RuntimeError("failed finding central directory\nmore"), "central directory$"),
        (EOFError(), "a.pt is not a readable .* alone: it ends early"),
        ([KERNEL], "expected a mapping from names to arrays"),
        (KERNEL, "expected a mapping"),
        ({"state_dict": [KERNEL]}, "expected a mapping"),
        ({3: KERNEL}, "the name 3 is not text"),
    ],
)
def test_files_of_torch(tmp_path, monkeypatch, content, message):
    """What `torch.load` raises or returns for other files (PyTorch is optional)."""

    def load(path, map_location, weights_only):
        assert weights_only and map_location == "cpu"
        if isinstance(content, Exception):
            raise content
        return content

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load))
    (tmp_path / "a.pt").touch()
    with pytest.raises(ValueError, match=message):
        read_state_dict(tmp_path / "a.pt")


def test_a_checkpoint_of_torch(tmp_path, monkeypatch):
    whole = {"state_dict": {"a": KERNEL}, "epoch": 3}
    torch = types.SimpleNamespace(load=lambda *_, **__: whole)
    monkeypatch.setitem(sys.modules, "torch", torch)
    (tmp_path / "a.PT").touch()
    assert read_state_dict(tmp_path / "a.PT") == {"a": KERNEL}
