"""PyTorch's names to ours: missing, unexpected and wrongly shaped weights."""

import jax
import numpy as np
import pytest

from earthformer_jax.interop import torch_predrnn
from earthformer_jax.models.recurrent.predrnn import PredRNN


def state_dict(layers=2, features=2, channels=4, plane=None, adapter=True):
    gates = dict(x=7, h=4, m=3, o=1)
    state = {"conv_last.weight": (channels, features, 1, 1)}
    if adapter:
        state["adapter.weight"] = (features, features, 1, 1)
    for i in range(layers):
        inputs = dict.fromkeys("hm", features) | dict(o=2 * features)
        inputs["x"] = features if i else channels
        for short, number in gates.items():
            entry, out = f"cell_list.{i}.conv_{short}", number * features
            state[f"{entry}.0.weight"] = (out, inputs[short], 3, 3)
            if plane:
                state[f"{entry}.1.weight"] = state[f"{entry}.1.bias"] = (out, *plane)
        state[f"cell_list.{i}.conv_last.weight"] = (features, 2 * features, 1, 1)
    rng = np.random.default_rng(0)
    return {k: rng.normal(size=v).astype("float32") for k, v in state.items()}


@pytest.mark.parametrize("plane", [None, (2, 3)])
@pytest.mark.parametrize("adapter", [False, True])
def test_every_number_finds_its_place(plane, adapter):
    state = state_dict(plane=plane, adapter=adapter)
    v = torch_predrnn.predrnn_params(state)
    model = PredRNN(
        (2, 4, 6, 1),
        (1, 4, 6, 1),
        num_layers=2,
        features=2,
        kernel_size=3,
        patch=2,
        layer_norm=plane is not None,
        decoupling=adapter,
    )
    x = np.zeros((1, 2, 4, 6, 1), "float32")
    created = jax.eval_shape(model.init, jax.random.key(0), x)
    assert jax.tree.map(np.shape, v) == jax.tree.map(np.shape, created)
    have = np.concatenate([a.ravel() for a in jax.tree.leaves(v)])
    want = np.concatenate([a.ravel() for a in state.values()])
    np.testing.assert_array_equal(np.sort(have), np.sort(want))


def test_refusals():
    state = state_dict()

    def refused(message, drop=(), **change):
        change = {k.replace("__", "."): v for k, v in change.items()}
        broken = {k: v for k, v in (state | change).items() if k not in drop}
        with pytest.raises(ValueError, match=message):
            torch_predrnn.predrnn_params(broken)

    weight = "cell_list.1.conv_m.0.weight"
    refused(f"no entry {weight}", drop=[weight])
    refused("no entry conv_last.weight", drop=["conv_last.weight"])
    refused("layers has no entry extra.weight", extra__weight=np.zeros(3))
    wrong = {"adapter__weight": np.zeros((3, 2, 1, 1))}
    refused(r"adapter.weight needs shape \(2, 2, 1, 1\); got \(3, 2, 1, 1\)", **wrong)
    wrong = {"cell_list__0__conv_h__0__weight": np.zeros((8, 2, 3))}
    refused(r"conv_h.0.weight needs shape \(8, 2, any, any\); got", **wrong)
    with pytest.raises(ValueError, match="is it that of a PredRNN?"):
        torch_predrnn.predrnn_params({"conv.weight": np.zeros(3)})
