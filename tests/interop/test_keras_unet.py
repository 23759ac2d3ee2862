"""Keras names of a UNet's weights: their order, and weights that do not fit."""

import numpy as np
import pytest

from earthformer_jax.interop import keras_unet
from tests import golden_files


@pytest.fixture(scope="module")
def weights():
    data = golden_files.load("baselines/unet_3level_enso_train_short")
    return golden_files.group(data, "param")


def test_places_follow_the_roles_of_the_reference(weights):
    data = golden_files.load("baselines/unet_3level_enso_train_short")
    roles = data["config"]["roles"]
    v = keras_unet.unet_params(weights)
    names = {"enc": "encoder_", "dec": "decoder_"}
    for role, entries in roles.items():
        block, _, layer = role.partition(".")
        tree = names.get(block[:3], "") + block[3:] if block[3:].isdigit() else block
        path = [{"output": "head"}.get(tree, tree)]
        inside = {"deconv": "up", "bn_concat": "norm"}
        if layer in inside:
            path.append(inside[layer])
        elif layer:
            path += ["convs"] * block.startswith("dec")
            path.append(layer.replace("conv", "conv_").replace("bn", "norm_"))
        for entry in entries:
            field = entry.split("/")[1]
            where = {
                "gamma": ("params", "scale"),
                "beta": ("params", "bias"),
                "moving_mean": ("batch_stats", "mean"),
                "moving_variance": ("batch_stats", "var"),
            }.get(field, ("params", field))
            node = v[where[0]]
            for key in path:
                node = node[key]
            have, want = node[where[1]], weights[entry]
            if layer == "deconv" and field == "kernel":
                want = np.flip(want, (0, 1)).transpose(0, 1, 3, 2)
            np.testing.assert_array_equal(have, want, err_msg=entry)


def test_names_of_several_models_in_one_session(weights):
    """Keras counts on from one model to the next, and older versions add ":0"."""

    def later(name):
        layer, field = name.split("/")
        kind, _, number = layer.rpartition("_")
        if not number.isdigit():
            kind, number = layer, "0"
        is_head = layer == "output_layer"
        return f"{layer if is_head else f'{kind}_{int(number) + 97}'}/{field}:0"

    want = keras_unet.unet_params(weights)
    have = keras_unet.unet_params(
        {later(n): a for n, a in reversed(list(weights.items()))}
    )
    np.testing.assert_array_equal(
        have["params"]["decoder_0"]["convs"]["conv_1"]["kernel"],
        want["params"]["decoder_0"]["convs"]["conv_1"]["kernel"],
    )
    np.testing.assert_array_equal(
        have["batch_stats"]["encoder_2"]["norm_1"]["var"],
        want["batch_stats"]["encoder_2"]["norm_1"]["var"],
    )


def without(weights, *names):
    return {k: v for k, v in weights.items() if not k.startswith(names)}


def test_weights_of_another_model(weights):
    def refused(weights, message):
        with pytest.raises(ValueError, match=message):
            keras_unet.unet_params(weights)

    refused({}, "of 0 levels .* has 2 layers conv2d; got 0")
    refused(without(weights, "conv2d_5/"), "has 14 layers conv2d; got 13")
    refused(
        without(weights, "batch_normalization_3/"),
        "of 3 levels .* has 17 layers batch_normalization; got 16",
    )
    refused(without(weights, "output_layer"), "output_layer needs the entries .* none")
    refused(
        without(weights, "conv2d_1/bias"),
        "conv2d_1 needs the entries kernel, bias; got kernel",
    )
    refused(weights | {"dense/kernel": np.zeros((2, 2))}, "has no layer 'dense'")
    refused(weights | {"kernel": np.zeros(2)}, "'kernel' is not the name of a weight")
    kernel = weights["conv2d_4/kernel"]
    refused(
        weights | {"conv2d_4/kernel": kernel[..., :-1]},
        r"conv2d_4/kernel has shape \(3, 3, 4, 7\); expected one that becomes",
    )
    refused(
        weights | {"conv2d/kernel": np.zeros(3)}, "conv2d/kernel has shape \\(3,\\)"
    )
