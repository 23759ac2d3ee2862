"""What compiled programs do: a text by hand, and programs that XLA compiled."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from earthformer_jax.profiling.operations import Operation, Product, moved, operations

TEXT = """
HloModule jit_step, is_scheduled=true

%fused.2 (param_0: f32[6,8], param_1: f32[8,4]) -> f32[6,4] {
  %param_0 = f32[6,8]{1,0} parameter(0)
  %param_1 = f32[8,4]{1,0} parameter(1)
  ROOT %dot.1 = f32[6,4]{1,0} dot(%param_0, %param_1), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(step)/dot_general"}
}

%body.1 (state: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %part = bf16[8,4]{1,0} get-tuple-element(%state), index=1
  %copy.3 = bf16[8,4]{1,0} copy(%part)
  %fusion = f32[6,4]{1,0} fusion(%x, %part), kind=kLoop, calls=%fused.2
}

%unused (x: f32[9]) -> f32[9] {
  ROOT %copy.9 = f32[9]{0} copy(%x)
}

ENTRY %main.5 (a: f32[2,3,7,5], k: f32[3,3,5,4]) -> (s32[], bf16[8,4]) {
  %a = f32[2,3,7,5]{3,2,1,0} parameter(0)
  %k = f32[3,3,5,4]{3,2,1,0} parameter(1)
  %while.2 = (s32[], bf16[8,4]{1,0}, /*index=2*/pred[10]{0}) while(%tuple), condition=%cond.1, body=%body.1, backend_config={"known_trip_count":{"n":"10"}}
  %convolution.4 = f32[2,3,7,4]{3,2,1,0} convolution(%a, %k), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
  %transpose.1 = f32[5,2,3,7]{1,2,0,3} transpose(%a), dimensions={3,0,1,2}
  ROOT %dot.6 = f32[2,3,5]{2,1,0} dot(f32[2,3,7,5]{3,2,1,0} %a, f32[2,3,7,5]{3,2,1,0} %a), lhs_batch_dims={0,1}, lhs_contracting_dims={2}, rhs_batch_dims={0,1}, rhs_contracting_dims={2}
}
"""  # noqa: E501


def test_a_text_by_hand():
    found = [x for x in operations(TEXT) if x.kind not in ("parameter", "fusion")]
    assert found == [
        Operation("dot", 4 * 6 * 4, 10, Product(1, 6, 8, 4)),
        Operation("get-tuple-element", 2 * 8 * 4, 10),
        Operation("copy", 2 * 8 * 4, 10),
        Operation("while", 4 + 2 * 8 * 4 + 10, 1),
        Operation("convolution", 4 * 168, 1, Product(1, 42, 45, 4, (3, 3))),
        Operation("transpose", 4 * 210, 1),
        Operation("dot", 4 * 30, 1, Product(6, 5, 7, 5, along_rows=False)),
    ]
    assert moved(found) == 10 * 64 + 840
    assert moved(found, ["copy"]) == 640
    assert found[0].product.sides == (1, (4, 6, 8))


def test_a_line_that_cannot_be_read():
    with pytest.raises(ValueError, match=r"cannot read this line .*: \(%one\)"):
        operations(TEXT.replace("(%param_0, %param_1)", "(%one)"))


def test_a_program_of_xla():
    """A product in a loop of five, and a convolution before it."""

    def function(x, kernel, weight):
        numbers = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=numbers
        )
        return lax.scan(lambda x, _: (jnp.sin(x @ weight), None), x, length=5)[0]

    shapes = ((2, 6, 8, 3), (3, 5, 3, 4), (4, 4))
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    found = operations(jax.jit(function).lower(*arguments).compile().as_text() or "")
    assert {(x.product, x.times) for x in found if x.product} == {
        (Product(1, 2 * 6 * 8, 3 * 5 * 3, 4, (3, 5)), 1),
        (Product(1, 2 * 6 * 8, 4, 4), 5),
    }
