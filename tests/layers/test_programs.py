"""What layers copy, store and multiply, read from their compiled gradients."""

import pytest

from earthformer_jax.layers.convolution import FrameConv
from earthformer_jax.layers.feed_forward import FeedForward
from earthformer_jax.layers.norm import LayerNorm
from earthformer_jax.layers.resample import PatchMerging, Upsample
from earthformer_jax.ops.tuned import choice
from tests.programs import Limits, faults, gradient_program, shapes

pytestmark = pytest.mark.usefixtures("without_native")
FIELD = shapes((2, 4, 8, 8, 64))  # 512 rows of 64 channels
MODULES = {
    "feed-forward": FeedForward(),
    "layer norm": LayerNorm(),
    "merging": PatchMerging(),
    "up-sampling": Upsample(64, (16, 16)),
    "convolution": FrameConv(64),
}
LIMITS = {
    # Two linear layers, 64 channels to 256 and back. GELU computes its exponentials
    # once more for the gradient, and nothing of 256 channels is copied.
    "feed-forward": Limits(
        {(1, (64, 256, 512)): 2 * 3},
        copied=0.62,
        transposed=0.5,
        accessed=121,
        planned=14,
        exponentials=4,
        across_rows=2,
    ),
    "layer norm": Limits({}, copied=0.125, transposed=0, accessed=19.5, planned=3.06),
    # 2 x 2 points of 64 channels to one of 128.
    "merging": Limits(
        {(1, (128, 128, 256)): 3},
        copied=6.02,
        transposed=5,
        accessed=36.7,
        planned=5.01,
        across_rows=1,
    ),
    # Phases of 2 x 2 taps instead of 3 x 3 taps of the enlarged field, once for the
    # result, once for the gradient of the field, and tap by tap for the kernel.
    "up-sampling": Limits(
        {
            (1, (256, 256, 648)): 2,
            (1, (64, 256, 648)): 4,
            (1, (3, 4, 12288)): 2,  # folding the kernel, and back
            (1, (3, 4, 16384)): 2,
        },
        copied=28.44,
        transposed=28.44,
        accessed=126.5,
        planned=21.2,
        across_rows=4,
    ),
    # The kernel's gradient is summed in a loop over frames, 3 rows of taps at a time.
    "convolution": Limits(
        {(1, (64, 512, 576)): 2, (2, (64, 64, 192)): 4 * 3},
        copied=3.25,
        transposed=3.25,
        accessed=47.2,
        planned=8.06,
        loops=1,
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_gradients(name):
    program = gradient_program(MODULES[name], FIELD)
    assert faults(program, FIELD[0], LIMITS[name]) == []


@pytest.mark.parametrize(
    ("name", "notice"),
    [
        ("feed-forward", "planned: 20.05"),
        ("layer norm", "accessed: 20.3"),
        ("up-sampling", r"products of sides \(1, \(64, 576, 2048\)\): 3, not 0"),
        ("convolution", r"products of sides \(1, \(64, 512, 576\)\): 3, not 2"),
    ],
)
def test_the_plain_functions_are_noticed(monkeypatch, name, notice):
    """Without `ops.tuned` layers do what they should not."""
    monkeypatch.setattr(choice, "MEASURED", ())
    found = faults(gradient_program(MODULES[name], FIELD), FIELD[0], LIMITS[name])
    with pytest.raises(AssertionError, match=notice):
        assert not found, "\n".join(found)
