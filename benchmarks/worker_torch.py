"""A worker that runs the official Earthformer in PyTorch: one case, one mode.

https://github.com/amazon-science/earth-forecasting-transformer
"""

import os
import sys
import time
import warnings

import numpy as np

from benchmarks import cases, machine
from benchmarks.contestant import Contestant
from benchmarks.processes import serve

BLOCKS = ("StackCuboidSelfAttentionBlock", "StackCuboidCrossAttentionBlock")


class Official(Contestant):
    """The public methods are the commands, as in `worker_jax.Ours`."""

    def start(self, peer: str) -> dict:
        """Imports PyTorch and the official package.

        Args:
            peer: folder that holds the package; empty if it is installed.

        Returns:
            versions and the memory held, or {"missing": reason}.
        """
        if peer:
            sys.path.insert(0, peer)
        try:
            import torch
            from earthformer.cuboid_transformer import cuboid_transformer
        except ImportError as error:
            return dict(missing=str(error))
        self.torch = torch
        self.model_class = cuboid_transformer.CuboidTransformerModel
        self.held = machine.held_mib()
        return dict(
            versions={"torch": torch.__version__},
            threads=torch.get_num_threads(),
            held_mib=self.held,
            tunables=os.environ.get("GLIBC_TUNABLES", ""),
        )

    def rate(self) -> dict:
        """Time of one product of matrices."""
        matrix = self.torch.full((machine.MATRIX_SIZE, machine.MATRIX_SIZE), 0.5)
        self.torch.matmul(matrix, matrix)
        start = time.perf_counter()
        self.torch.matmul(matrix, matrix)
        return dict(seconds=time.perf_counter() - start)

    def prepare(
        self,
        case: str,
        mode: str,
        batch: int,
        dropout: float,
        weights: str,
        compiled: str = "",
    ) -> dict:
        """Builds the model with our weights; compiled, it runs for the first time.

        Args:
            case: one of `cases.CASES`.
            mode: "forward" or "train".
            batch: number of examples.
            dropout: dropout rate in training.
            weights: .npz file, by official names.
            compiled: mode of `torch.compile`; "blocks": the default one, of each block
                of layers by itself; empty: the model runs as it comes.

        Returns:
            the number of "parameters", and the seconds of the "first_call" of a
            compiled model.
        """
        torch = self.torch
        torch.manual_seed(0)
        warnings.filterwarnings("ignore", message="torch.meshgrid")
        self.model = self.model_class(**cases.options(case, dropout))
        with np.load(weights) as arrays:
            state = {name: torch.from_numpy(arrays[name]) for name in arrays}
        self.model.load_state_dict(state, strict=True)
        self.model.train(mode == "train")
        arrays = cases.example(case, batch)
        self.inputs = torch.from_numpy(arrays["inputs"])
        self.mode = mode
        if mode == "train":
            self.targets = torch.from_numpy(arrays["targets"])
            self.optimizer = self._optimizer()
        found = dict(parameters=sum(p.numel() for p in self.model.parameters()))
        self.run = self.model
        if compiled:
            if compiled == "blocks":
                self._compile_blocks()
            else:
                self.run = torch.compile(self.model, mode=compiled)
            start = time.perf_counter()
            self._call()
            found["first_call_s"] = time.perf_counter() - start
        return found

    def forecast(self, path: str) -> None:
        """Writes the forecast to an .npy file."""
        with self.torch.inference_mode():
            np.save(path, self.run(self.inputs).numpy())

    def _call(self):
        if self.mode == "forward":
            with self.torch.inference_mode():
                self.run(self.inputs)
            return None
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.torch.nn.functional.mse_loss(self.run(self.inputs), self.targets)
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), cases.CLIP_NORM)
        self.optimizer.step()
        return loss.detach()

    def _compile_blocks(self):
        """Equal blocks are compiled once, so that a large model takes minutes."""
        self.torch._dynamo.config.recompile_limit = 64  # kinds of blocks
        for module in self.model.modules():
            if type(module).__name__ in BLOCKS:
                module.compile()

    def _optimizer(self):
        """AdamW; as in the official recipe, without decay of layer norms and biases."""
        nn = self.torch.nn
        spared = {
            id(parameter)
            for module in self.model.modules()
            if isinstance(module, nn.LayerNorm)
            for parameter in module.parameters()
        }
        groups = {True: [], False: []}
        for name, parameter in self.model.named_parameters():
            decays = id(parameter) not in spared and "bias" not in name
            groups[decays].append(parameter)
        return self.torch.optim.AdamW(
            [
                dict(params=groups[True], weight_decay=cases.WEIGHT_DECAY),
                dict(params=groups[False], weight_decay=0.0),
            ],
            lr=cases.LEARNING_RATE,
        )


if __name__ == "__main__":
    official = Official()
    names = "start rate prepare forecast settle measure memory"
    serve({name: getattr(official, name) for name in names.split()})
