"""A worker that runs a recurrent model on JAX: ours, or Keras's ConvLSTM2D."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks import cases, jax_cpu, machine, rival_cases, worker_jax  # noqa: E402
from benchmarks.processes import serve  # noqa: E402
from earthformer_jax import models  # noqa: E402
from earthformer_jax.interop import (  # noqa: E402
    keras,
    official,
    torch_phydnet,
    torch_predrnn,
)
from earthformer_jax.models.recurrent import ConvLSTM  # noqa: E402
from earthformer_jax.training import mesh as mesh_lib  # noqa: E402


class OnJax(worker_jax.Ours):
    """The public methods are the commands."""

    def start(self, side: str, rival: str) -> dict:
        """Imports what the side needs.

        Args:
            side: "ours" or "keras on jax".
            rival: ignored; the folder of OpenSTL.

        Returns:
            versions, or {"missing": reason}.
        """
        del rival
        self.side, versions = side, {"jax": jax.__version__}
        if side != "ours":
            try:
                import keras as library
            except ImportError as error:
                return dict(missing=str(error))
            self.library = library
            versions["keras"] = library.__version__
        self.held = machine.held_mib()
        return dict(versions=versions)

    def prepare(self, case: str, mode: str, batch: int, weights: str) -> dict:
        """Builds and compiles.

        Args:
            case: one of `rival_cases.CASES`.
            mode: "forward" or "train".
            batch: number of examples.
            weights: .npz file by the rival's names; empty: random ones.

        Returns:
            the number of "parameters".
        """
        count = machine.largest_divisor(batch, machine.cores())
        mesh = jax_cpu.data_mesh(count if self.side == "ours" else 1)
        self.spread = mesh_lib.by_example(mesh)
        everywhere = mesh_lib.replicated(mesh)
        arrays = jax.device_put(rival_cases.example(case, batch), self.spread)
        self.mode, self.batch = mode, arrays["inputs"]
        if rival_cases.kind(case) == "conv_lstm":
            self._prepare_layer(everywhere)
        else:
            model, params = _model(case, weights)
            if mode == "train":
                self.batch = arrays
                step, self.state = worker_jax.training_step(model, params, everywhere)
            else:
                self.state = jax.device_put({"params": params}, everywhere)
                step = jax.jit(model.apply, out_shardings=self.spread)
            self.program = step.lower(self.state, self.batch).compile()
            self.parameters = params
        leaves = jax.tree.leaves(self.parameters)
        return dict(parameters=sum(leaf.size for leaf in leaves))

    def _prepare_layer(self, everywhere) -> None:
        """One ConvLSTM; a step of training also gives the gradient of its input."""
        options = dict(
            filters=rival_cases.FILTERS,
            kernel_size=rival_cases.KERNEL,
            padding="same",
            return_sequences=True,
        )
        weights = rival_cases.layer_weights()
        if self.side == "ours":
            params, apply = keras.conv_lstm_params(weights), ConvLSTM(**options).apply
        else:
            layer = self.library.layers.ConvLSTM2D(**options)
            layer.build(self.batch.shape)
            params = [jnp.asarray(w) for w in weights]
            others = [v.value for v in layer.non_trainable_variables]

            def apply(params, x):
                return layer.stateless_call(params, others, x)[0]

        def loss(params, x):
            return jnp.mean(jnp.square(apply(params, x)))

        def train(params, x):
            value, (grads, field) = jax.value_and_grad(loss, (0, 1))(params, x)
            new = jax.tree.map(lambda w, g: w - 1e-3 * g, params, grads)
            return new, {"loss": value, "field": field}

        function = apply if self.mode == "forward" else train
        self.parameters = self.state = jax.device_put(params, everywhere)
        self.program = jax.jit(function).lower(self.state, self.batch).compile()


def _model(case: str, weights: str):
    """Our model of a case, and its parameters."""
    name, chosen = rival_cases.kind(case), rival_cases.CASES[case]
    shape = (rival_cases.FRAMES, chosen.size, chosen.size, chosen.channels)
    if name == "simvp":
        model = official.earthformer_from_config(cases.options("nbody", cases.DROPOUT))
        model = model.clone(scan_blocks=True)
        return model, worker_jax.random_params(model)
    model = models.create_model(
        name, input_shape=shape, target_shape=shape, **chosen.options
    )
    if not weights:
        return model, worker_jax.random_params(model)
    with np.load(weights) as arrays:
        state = {name: arrays[name] for name in arrays}
    if name == "predrnn":
        return model, torch_predrnn.predrnn_params(state)["params"]
    return model, torch_phydnet.phydnet_params(state)["params"]


if __name__ == "__main__":
    side = OnJax()
    names = "start prepare forecast settle measure memory"
    serve({name: getattr(side, name) for name in names.split()})
