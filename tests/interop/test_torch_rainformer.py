"""Weights of the PyTorch Rainformer: which entries matter, and which are rejected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.interop import torch_rainformer
from earthformer_jax.models.rainformer import blocks
from earthformer_jax.models.rainformer.model import Rainformer
from tests import golden_files

NET = dict(features=4, heads=(1, 1, 2, 2), head_dim=4, window=2)


class Tensor:
    """What this needs of a torch tensor."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    cpu = detach

    def numpy(self):
        return self.array


@pytest.fixture(scope="module")
def weights():
    data = golden_files.load("baselines/rainformer_net_eval")
    return golden_files.group(data, "param"), golden_files.group(data, "const")


def variables(state_dict, **options):
    model = Rainformer((3, 32, 64, 1), (2, 32, 64, 1), **NET | options)
    return torch_rainformer.rainformer_variables(state_dict, model)


def test_every_number_is_carried_over(weights):
    """Masks and counters are no weights; tensors serve as arrays."""
    param, const = weights
    have = variables(param)
    count = sum(a.size for a in jax.tree.leaves(have))
    assert count == sum(a.size for a in param.values())
    extra = {"stage1.layers.0.2.conv.1.num_batches_tracked": np.asarray(3)}
    same = variables({k: Tensor(v) for k, v in (param | const | extra).items()})
    jax.tree.map(np.testing.assert_array_equal, have, same)
    np.testing.assert_array_equal(
        have["params"]["decoder_2"]["fusion"]["gates"]["norm"]["scale"][3, 5],
        param["stage5.layers.0.4.conv_1.1.weight"][:, 3, 5],
    )


def test_weights_without_a_place_are_left_out_only_if_dead(weights):
    param, _ = weights
    fewer = variables(param, upstream_dead_params=False)
    assert "dead_1" not in fewer["params"]["head"]["fusion"]
    np.testing.assert_array_equal(
        fewer["params"]["head_expand"]["linear"]["kernel"],
        param["stage8.patch_partition.linear.weight"].T,
    )


def test_the_last_unit_of_a_stage_acts(weights):
    """Here its numbers stand apart from those of an earlier one by their sign."""
    param, _ = weights
    both = {k.replace("layers.0", "layers.2"): v for k, v in param.items()}
    both |= {k: -v for k, v in param.items() if ".layers." in k}
    jax.tree.map(np.testing.assert_array_equal, variables(both), variables(param))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(missing="stage2.patch_partition.linear.bias"), r"missing \(1\): stage2"),
        (dict(extra="stage9.patch_partition.linear.bias"), r"unexpected \(1\): stage9"),
        (dict(shape="stage7.layers.0.3.sa.conv.weight"), r"wrong shape \(1\): stage7"),
        (dict(shape="stage3.layers.0.4.conv_1.1.bias"), r"wrong shape \(1\): stage3"),
    ],
)
def test_refusals(weights, change, message):
    param = dict(weights[0])
    if "missing" in change:
        del param[change["missing"]]
    if "extra" in change:
        param[change["extra"]] = np.zeros(3)
    if "shape" in change:
        param[change["shape"]] = np.zeros([n + 1 for n in param[change["shape"]].shape])
    with pytest.raises(ValueError, match=message):
        variables(param)


def test_a_block_alone():
    module = blocks.PatchMerging(5)
    x = jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32)
    template = jax.eval_shape(module.init, jax.random.key(0), x)
    entries = {"linear.weight": np.ones((5, 12)), "linear.bias": np.zeros(5)}
    have = torch_rainformer.import_variables(entries, template)
    assert have["params"]["linear"]["kernel"].shape == (12, 5)
    with pytest.raises(ValueError, match=r"missing \(1\): linear.bias"):
        del entries["linear.bias"]
        torch_rainformer.import_variables(entries, template)
