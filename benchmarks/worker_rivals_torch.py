"""A worker that runs a recurrent model on PyTorch: OpenSTL's, or Keras's ConvLSTM2D.

https://github.com/chengtan9907/OpenSTL
"""

import os
import sys
import types

os.environ["KERAS_BACKEND"] = "torch"

import numpy as np  # noqa: E402

from benchmarks import cases, machine, rival_cases  # noqa: E402
from benchmarks.contestant import Contestant  # noqa: E402
from benchmarks.processes import serve  # noqa: E402


class OnTorch(Contestant):
    """The public methods are the commands, as in `worker_rivals_jax.OnJax`."""

    def start(self, side: str, rival: str) -> dict:
        """Imports what the side needs.

        Args:
            side: "openstl" or "keras on torch".
            rival: folder that holds the package `openstl`; empty if it is installed.

        Returns:
            versions, or {"missing": reason}.
        """
        if rival:
            sys.path.insert(0, rival)
        try:
            import torch

            versions = {"torch": torch.__version__}
            if side == "openstl":
                from openstl import models, modules

                self.models, self.modules = models, modules
            else:
                import keras

                self.library = keras
                versions["keras"] = keras.__version__
        except ImportError as error:
            return dict(missing=str(error))
        self.torch, self.side = torch, side
        self.held = machine.held_mib()
        return dict(versions=versions)

    def prepare(self, case: str, mode: str, batch: int, weights: str) -> dict:
        """Builds the model.

        Args:
            case: one of `rival_cases.CASES`.
            mode: "forward" or "train".
            batch: number of examples.
            weights: .npz file to write the weights to.

        Returns:
            the number of "parameters".
        """
        torch = self.torch
        torch.manual_seed(0)
        self.mode, name = mode, rival_cases.kind(case)
        arrays = rival_cases.example(case, batch)
        self.inputs = torch.from_numpy(arrays["inputs"])
        self.targets = torch.from_numpy(arrays["targets"])
        if name == "conv_lstm":
            make = self._layer if self.side == "openstl" else self._keras_layer
            self.parameters, self.run = make()
            self.inputs.requires_grad_(mode == "train")
            return dict(parameters=sum(p.numel() for p in self.parameters))
        self.model, self.run, self.loss = getattr(self, f"_{name}")(case)
        self.model.train(mode == "train")
        if mode == "train":
            self.optimizer = torch.optim.AdamW(
                self.model.parameters(),
                lr=cases.LEARNING_RATE,
                weight_decay=cases.WEIGHT_DECAY,
            )
        named = dict(self.model.named_parameters())
        np.savez(weights, **{_entry(k): p.detach().numpy() for k, p in named.items()})
        return dict(parameters=sum(p.numel() for p in named.values()))

    def forecast(self, path: str) -> None:
        """Writes the result of a forward pass, `[b, t, h, w, c]`, to an .npy file."""
        with self.torch.no_grad():
            np.save(path, self.run().numpy())

    def _call(self):
        torch = self.torch
        if self.mode == "forward":
            with torch.no_grad():
                self.run()
            return None
        if hasattr(self, "parameters"):  # a single layer: gradient descent
            self.inputs.grad = None
            loss = torch.mean(torch.square(self.run()))
            for parameter in self.parameters:
                parameter.grad = None
            loss.backward()
            with torch.no_grad():
                for parameter in self.parameters:
                    parameter -= 1e-3 * parameter.grad
            return loss.detach()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), cases.CLIP_NORM)
        self.optimizer.step()
        return loss.detach()

    def _layer(self):
        """A loop over frames of OpenSTL's cell, and the weights that it uses."""
        size, torch = self.inputs.shape[2], self.torch
        filters, kernel = rival_cases.FILTERS, rival_cases.KERNEL
        cell = self.modules.ConvLSTMCell(filters, filters, size, size, kernel, 1, False)
        used = [cell.conv_x[0].weight, cell.conv_h[0].weight]
        with torch.no_grad():
            for weight, array in zip(used, rival_cases.layer_weights(), strict=False):
                weight.copy_(torch.from_numpy(array.transpose(3, 2, 0, 1)))

        def run():
            frames = self.inputs.permute(1, 0, 4, 2, 3)
            hidden = state = torch.zeros_like(frames[0])
            found = []
            for frame in frames:
                hidden, state = cell(frame, hidden, state)
                found.append(hidden)
            return torch.stack(found).permute(1, 0, 3, 4, 2)

        return used, run

    def _keras_layer(self):
        layer = self.library.layers.ConvLSTM2D(
            filters=rival_cases.FILTERS,
            kernel_size=rival_cases.KERNEL,
            padding="same",
            return_sequences=True,
        )
        layer.build(tuple(self.inputs.shape))
        layer.set_weights(rival_cases.layer_weights())
        used = [v.value for v in layer.trainable_variables]
        return used, lambda: layer(self.inputs)

    def _predrnn(self, case):
        """Frames as patches of 4 x 4; forecasts are fed back, never true frames."""
        torch, chosen = self.torch, rival_cases.CASES[case]
        frames, patch, size = rival_cases.FRAMES, 4, chosen.size
        options = dict(num_layers=4, features=128) | chosen.options
        settings = types.SimpleNamespace(
            in_shape=(frames, chosen.channels, size, size),
            patch_size=patch,
            filter_size=5,
            stride=1,
            layer_norm=0,
            pre_seq_length=frames,
            aft_seq_length=frames,
            reverse_scheduled_sampling=0,
        )
        count = options["num_layers"]
        widths = [options["features"]] * count
        model = self.models.PredRNN_Model(count, widths, settings)

        def patches(x):
            b, t, h, w, _ = x.shape
            x = x.reshape(b, t, h // patch, patch, w // patch, patch, -1)
            x = x.permute(0, 1, 2, 4, 3, 5, 6)
            return x.reshape(b, t, h // patch, w // patch, -1)

        sequence = patches(torch.cat([self.inputs, self.targets], dim=1))
        never = torch.zeros_like(sequence[:, : frames - 1])

        def run():
            found = model(sequence, never, return_loss=False)[0][:, frames - 1 :]
            b, t, h, w, _ = found.shape
            found = found.reshape(b, t, h, w, patch, patch, -1)
            found = found.permute(0, 1, 2, 4, 3, 5, 6)
            return found.reshape(b, t, h * patch, w * patch, -1)

        return model, run, lambda: model(sequence, never)[1]

    def _phydnet(self, case):
        """Forecasts are fed back, never true frames."""
        torch, chosen = self.torch, rival_cases.CASES[case]
        frames = rival_cases.FRAMES
        settings = types.SimpleNamespace(
            in_shape=(frames, chosen.channels, chosen.size, chosen.size),
            patch_size=4,
            pre_seq_length=frames,
            aft_seq_length=frames,
            device="cpu",
        )
        model = self.models.PhyDNet_Model(settings)
        moments = torch.eye(49).reshape(49, 7, 7)
        inputs, targets = (_channels_second(x) for x in (self.inputs, self.targets))

        def run():
            found, _ = model.inference(inputs, targets, moments, return_loss=False)
            return found.permute(0, 1, 3, 4, 2)

        return model, run, lambda: model(inputs, targets, moments)

    def _simvp(self, case):
        """The published network for moving digits, with gated attention (gSTA)."""
        chosen = rival_cases.CASES[case]
        model = self.models.SimVP_Model(
            (rival_cases.FRAMES, chosen.channels, chosen.size, chosen.size),
            hid_S=64,
            hid_T=512,
            N_S=4,
            N_T=8,
            model_type="gSTA",
        )
        inputs, targets = (_channels_second(x) for x in (self.inputs, self.targets))

        def run():
            return model(inputs).permute(0, 1, 3, 4, 2)

        def loss():
            return self.torch.nn.functional.mse_loss(model(inputs), targets)

        return model, run, loss


def _channels_second(x):
    return x.permute(0, 1, 4, 2, 3).contiguous()


def _entry(name: str) -> str:
    """The name of a weight in the published code, from that in OpenSTL."""
    return name.removeprefix("encoder.")


if __name__ == "__main__":
    side = OnTorch()
    names = "start prepare forecast settle measure memory"
    serve({name: getattr(side, name) for name in names.split()})
