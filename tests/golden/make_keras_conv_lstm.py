"""Writes keras_conv_lstm.npz: what Keras's ConvLSTM2D returns, and its gradients.

KERAS_BACKEND=jax python tests/golden/make_keras_conv_lstm.py

Made with Keras 3.15.1 on JAX 0.10.2, on a CPU, in float32. Keras reads a mask rightly
only when its loop is unrolled.
"""

import json
import os
import pathlib

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import keras
import numpy as np

SHAPE = (2, 4, 6, 7, 2)  # b t h w c
CASES = (
    dict(kernel_size=3, padding="same", return_sequences=True),
    dict(kernel_size=(2, 3), strides=(2, 1)),
    dict(kernel_size=3, strides=2, padding="same", return_sequences=True),
    dict(kernel_size=2, padding="same", dilation_rate=2, go_backwards=True),
    dict(kernel_size=3, padding="same", data_format="channels_first", use_bias=False),
    dict(kernel_size=1, return_sequences=True, mask=True),
    dict(kernel_size=3, padding="same", mask=True, go_backwards=True),
    dict(
        kernel_size=3,
        activation="relu",
        recurrent_activation="hard_sigmoid",
        return_sequences=True,
        initial_state=True,
    ),
)


def main():
    """Runs every case."""
    random = np.random.default_rng(0)

    def draw(*shape, scale=1.0):
        return (scale * random.normal(size=shape)).astype(np.float32)

    arrays = {}
    for number, case in enumerate(CASES):
        options = {k: v for k, v in case.items() if k not in ("mask", "initial_state")}
        layer = keras.layers.ConvLSTM2D(
            filters=3, return_state=True, unroll="mask" in case, **options
        )
        x = draw(*SHAPE)
        if options.get("data_format") == "channels_first":
            x = np.moveaxis(x, -1, 2)
        call = {}
        if "mask" in case:
            call["mask"] = np.array([[1, 0, 1, 1], [0, 1, 1, 0]], bool)
        state = layer.compute_output_shape(x.shape)[1]
        if "initial_state" in case:
            call["initial_state"] = [draw(*state), draw(*state)]
        layer.build(x.shape)
        weights = [draw(*w.shape, scale=0.4) for w in layer.get_weights()]
        cotangents = [draw(*s) for s in layer.compute_output_shape(x.shape)]

        seeds = [v.value for v in layer.non_trainable_variables]

        def run(weights, x, layer=layer, seeds=seeds, call=call):
            out, _ = layer.stateless_call(weights, seeds, x, **call)
            return out

        out, pull = jax.vjp(run, [jnp.asarray(w) for w in weights], jnp.asarray(x))
        weight_grads, input_grad = pull(tuple(map(jnp.asarray, cotangents)))
        groups = dict(
            weight=weights,
            output=out,
            cotangent=cotangents,
            grad=weight_grads,
            state=call.get("initial_state", []),
        )
        arrays[f"{number}/x"], arrays[f"{number}/grad_x"] = x, np.asarray(input_grad)
        if "mask" in call:
            arrays[f"{number}/mask"] = call["mask"]
        for name, group in groups.items():
            for i, array in enumerate(group):
                arrays[f"{number}/{name}/{i}"] = np.asarray(array)
    config = [
        {k: v for k, v in case.items() if k not in ("mask", "initial_state")}
        for case in CASES
    ]
    path = pathlib.Path(__file__).with_name("keras_conv_lstm.npz")
    np.savez_compressed(path, config=json.dumps(config), **arrays)
    print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
