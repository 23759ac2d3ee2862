"""What grows with the size of fields: fits by hand, and compiled forward passes."""

import functools

import jax
import numpy as np
import pytest

from benchmarks import growth
from earthformer_jax.training import mesh as mesh_lib
from tests.programs import check_growth, compiled, cost

pytestmark = pytest.mark.usefixtures("without_native")


def test_the_exponent_is_that_of_a_power_law():
    x = np.array([1, 2, 4, 8])
    assert growth.exponent(x, 0.3 * x**1.7) == pytest.approx(1.7)


def test_the_affine_fit_is_that_of_a_line():
    x = np.array([1, 2, 4, 8])
    assert growth.affine(x, 2.0 + 0.5 * x) == pytest.approx((2.0, 0.5))


def test_table_and_figure():
    rows = [
        dict(
            model="earthformer",
            devices=1,
            mode=mode,
            axis=axis,
            size=size,
            multiply_adds=size[axis],
            least_s=0.01 * size[axis] ** 1.1,
        )
        for mode in growth.MODES
        for axis, found in growth.sizes(2).items()
        for size in found
    ]
    found = growth.fits(rows)
    assert len(found) == 10
    row = "| earthformer | 1 | train | batch | 1, 2, 4 | 10.0, 21.4, 45.9 | 1.10 |"
    assert row in growth.table(found)
    left, right = growth.figure(found).axes
    assert left.get_legend().get_texts()[0].get_text() == "T (frames): 1.10"
    assert right.get_title(loc="left") == "Training step"


def test_the_smallest_batch_has_an_example_for_each_device():
    assert [x["batch"] for x in growth.sizes(1, devices=2)["batch"]] == [2, 4]
    assert "depth" not in growth.sizes(1, "predrnn")


@functools.cache
def cost_of(name, devices=1, **factors):
    """What a device does in a forward pass, of two examples at least."""
    base = growth.BASE | {"batch": 2}
    size = {axis: n * factors.get(axis, 1) for axis, n in base.items()}
    model = growth.model_of(name, size)
    mesh = mesh_lib.data_mesh(jax.devices()[:devices])
    shape = (size["batch"], *model.input_shape)
    spread = mesh_lib.by_example(mesh)
    field = jax.ShapeDtypeStruct(shape, np.float32, sharding=spread)
    state = jax.eval_shape(lambda: growth.state_of(model))
    forward = growth.function_of(model, "forward")
    return cost(compiled(forward, state, dict(inputs=field)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "devices", "factors"),
    [
        ("earthformer", 1, dict(frames=8)),
        ("earthformer", 1, dict(height=8)),
        ("earthformer", 1, dict(width=8)),
        ("earthformer", 1, dict(batch=8)),
        ("earthformer", 2, dict(frames=2, height=2, batch=2)),
        ("conv_lstm", 1, dict(frames=8)),
    ],
)
def test_cost_grows_in_proportion(name, devices, factors):
    """Eight times as much of anything costs eight times as much, within 10 %."""
    least, grown = cost_of(name, devices), cost_of(name, devices, **factors)
    check_growth(least, grown, 8)
