"""A worker that runs our Earthformer: one case, one mode."""

import os
import time
from importlib import metadata

import jax
import numpy as np
import optax

from benchmarks import cases, jax_cpu, machine
from benchmarks.contestant import Contestant
from benchmarks.processes import serve
from earthformer_jax.interop import official
from earthformer_jax.profiling.multiply_adds import multiply_adds
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training import optimizer
from earthformer_jax.training import state as state_lib
from earthformer_jax.training import step as step_lib


class Ours(Contestant):
    """The public methods are the commands."""

    def start(self) -> dict:
        """Versions, and the memory held after the imports."""
        self.held = machine.held_mib()
        return dict(
            versions={
                "jax": jax.__version__,
                "jaxlib": metadata.version("jaxlib"),
                "optax": optax.__version__,
            },
            held_mib=self.held,
            tunables=os.environ.get("GLIBC_TUNABLES", ""),
        )

    def rate(self) -> dict:
        """Time of one product of matrices."""
        return dict(seconds=jax_cpu.matrix_seconds())

    def prepare(
        self,
        case: str,
        mode: str,
        batch: int,
        dropout: float,
        devices: int,
        scan_blocks: bool = False,
    ) -> dict:
        """Builds the model and compiles the program.

        Args:
            case: one of `cases.CASES`.
            mode: "forward" or "train".
            batch: number of examples.
            dropout: dropout rate in training.
            devices: number of devices that share the batch.
            scan_blocks: run equal blocks as a loop.
        """
        mesh = jax_cpu.data_mesh(devices)
        everywhere, spread = mesh_lib.replicated(mesh), mesh_lib.by_example(mesh)
        self.model = official.earthformer_from_config(
            cases.options(case, dropout)
        ).clone(scan_blocks=scan_blocks)
        params = random_params(self.model)
        batch = jax.device_put(cases.example(case, batch), spread)
        if mode == "forward":
            self.state = jax.device_put({"params": params}, everywhere)
            self.batch = batch["inputs"]
            function = jax.jit(self.model.apply, out_shardings=spread)
        else:
            function, self.state = training_step(self.model, params, everywhere)
            self.batch = batch
        self.mode = mode
        start = time.perf_counter()
        lowered = function.lower(self.state, self.batch)
        middle = time.perf_counter()
        self.program = lowered.compile()
        end = time.perf_counter()
        return dict(
            parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
            lower_s=middle - start,
            compile_s=end - middle,
        )

    def count(self) -> dict:
        """Multiply-adds of a forward pass."""
        inputs = self.batch if self.mode == "forward" else self.batch["inputs"]
        shapes = jax.eval_shape(self.model.init, jax.random.key(0), inputs)
        return dict(multiply_adds=multiply_adds(self.model.apply, shapes, inputs))

    def export(self, path: str) -> None:
        """Writes the weights to an .npz file, by their official names."""
        variables = jax.device_get(self.state)
        np.savez(path, **official.state_dict_from_params(variables, self.model))

    def forecast(self, path: str) -> None:
        """Writes the forecast to an .npy file."""
        np.save(path, np.asarray(self.program(self.state, self.batch)))

    def _call(self):
        if self.mode == "forward":
            jax.block_until_ready(self.program(self.state, self.batch))
            return None
        self.state, scalars = self.program(self.state, self.batch)
        jax.block_until_ready((self.state, scalars))
        return scalars["loss"]


def random_params(model):
    """Parameters of ordinary size, none of them zero, so that each has an effect."""
    random = np.random.default_rng(1)

    def fill(path, leaf):
        noise = random.normal(size=leaf.shape).astype(np.float32)
        name = path[-1].key
        if name == "kernel":
            return noise / np.sqrt(np.prod(leaf.shape[:-1], dtype=np.float32))
        return 0.02 * noise + (name == "scale")

    inputs = jax.ShapeDtypeStruct((1, *model.input_shape), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), inputs)["params"]
    return jax.tree_util.tree_map_with_path(fill, shapes)


def training_step(model, params, sharding):
    """The project's own step, (state, batch) -> (state, scalars), and its first state.

    Dropout, mean squared error, gradient, clipping, AdamW.
    """
    rate = optax.constant_schedule(cases.LEARNING_RATE)
    tx = optimizer.adamw(
        rate, weight_decay=cases.WEIGHT_DECAY, clip_norm=cases.CLIP_NORM
    )

    def update(state, batch):
        return step_lib.update(
            state,
            batch,
            model=model,
            tx=tx,
            learning_rate=rate,
            loss_weights=np.ones((1, 1, 1, 1), np.float32),
        )

    state = state_lib.TrainState(
        step=np.zeros((), np.int32),
        params=params,
        batch_stats={},
        opt_state=tx.init(params),
        ema_params=None,
        rng=jax.random.key(0, impl="rbg"),
    )
    function = jax.jit(update, donate_argnums=0, out_shardings=sharding)
    return function, jax.device_put(state, sharding)


if __name__ == "__main__":
    ours = Ours()
    names = "start rate prepare count export forecast settle measure memory"
    serve({name: getattr(ours, name) for name in names.split()})
