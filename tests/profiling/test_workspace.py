"""Copies that convolutions need, read from the text of a compiled program."""

import pytest

from earthformer_jax.profiling.workspace import largest_convolution

# Shortened from the gradient of a convolution, f32[4,6,8,3] with 3x3 filters of 2 and 5
# channels. One of the convolutions is compiled by XLA itself.
PROGRAM = """
HloModule jit_f, is_scheduled=true

%filter (param_0.1: f32[3,6,8,4], param_1.1: f32[6,8,4,5]) -> f32[3,3,3,5] {
  %param_0.1 = f32[3,6,8,4]{3,2,1,0} parameter(0)
  %param_1.1 = f32[6,8,4,5]{3,2,1,0} parameter(1)
  ROOT %convolution.1 = f32[3,3,3,5]{3,2,1,0} convolution(%param_0.1, %param_1.1), \
window={size=6x8 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
}

%forward (param_0.2: bf16[4,6,8,3], param_1.2: bf16[3,2,3,5]) -> bf16[4,6,7,5] {
  %param_0.2 = bf16[4,6,8,3]{3,2,1,0} parameter(0)
  %param_1.2 = bf16[3,2,3,5]{3,2,1,0} parameter(1)
  ROOT %convolution.2 = bf16[4,6,7,5]{3,2,1,0} convolution(%param_0.2, %param_1.2), \
window={size=3x2 pad=1_1x0_0}, dim_labels=b01f_01io->b01f
}

ENTRY %main (a: f32[3,6,8,4], b: f32[6,8,4,5]) -> f32[3,3,3,5] {
  %a = f32[3,60,80,4]{3,2,1,0} parameter(0)
  %b = f32[60,80,4,5]{3,2,1,0} parameter(1)
  %own = f32[3,3,3,5]{3,2,1,0} convolution(%a, %b), window={size=60x80 pad=1_1x1_1}, \
dim_labels=b01f_01io->b01f
  %c = bf16[4,6,7,5]{3,2,1,0} fusion(%x, %y), kind=kCustom, calls=%forward, \
backend_config={"fusion_config":{"kind":"__ynn_fusion"}}
  ROOT %d = f32[3,3,3,5]{3,2,1,0} fusion(%a, %b), kind=kCustom, calls=%filter, \
backend_config={"fusion_config":{"kind":"__ynn_fusion"}}
}
"""

FILTER = 4 * (3 * 8 * 10 * 4 + 6 * 8 * 4 * 5)  # margins of the input; the gradient
FORWARD = 2 * (4 * 8 * 8 * 3 + 3 * 2 * 3 * 5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROGRAM, FILTER),
        (PROGRAM.replace("calls=%filter", "calls=%other"), FORWARD),
        (PROGRAM.replace("__ynn_fusion", "__another"), 0),
        ("", 0),
    ],
)
def test_the_largest_copies(text, expected):
    assert largest_convolution(text) == expected
