"""Counting in jaxprs: hand-computed numbers, loops, branches, calls, residuals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from earthformer_jax.ops.tuned.loop_convolution import convolve_in_loop
from earthformer_jax.profiling.multiply_adds import multiply_adds, residual_bytes


def like(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize(
    ("equation", "shapes", "want"),
    [
        ("ij,jk->ik", [(2, 3), (3, 5)], 2 * 3 * 5),
        ("bij,bjk->bik", [(7, 2, 3), (7, 3, 5)], 7 * 2 * 3 * 5),
        ("ij,ij->", [(2, 3), (2, 3)], 6),
        ("bijc,dc->bijd", [(2, 4, 4, 3), (5, 3)], 2 * 4 * 4 * 3 * 5),
    ],
)
def test_matrix_products(equation, shapes, want):
    arrays = [like(*shape) for shape in shapes]
    assert multiply_adds(lambda a, b: jnp.einsum(equation, a, b), *arrays) == want


def windows_by_hand(size, kernel, stride, low, high, spread):
    """Pairs of an output and a tap on an input or its padding, from indicators."""
    inside = np.zeros((size - 1) * spread + 1)
    inside[::spread] = 1
    # Padding continues the pattern of inputs.
    index = np.arange(-low, len(inside) + high)
    is_input = index % spread == 0
    return sum(
        is_input[o : o + kernel].sum()
        for o in range(0, len(is_input) - kernel + 1, stride)
    )


@pytest.mark.parametrize(
    ("kernel", "stride", "low", "high", "spread"),
    [
        (3, 1, 1, 1, 1),
        (7, 2, 3, 3, 1),
        (4, 1, 2, 2, 2),  # transposed, 4 x 4 stride 2
        (2, 1, 1, 1, 2),  # 2 x 2 stride 2
        (3, 1, 1, 2, 2),  # 3 x 3 stride 2
        (6, 1, 3, 4, 3),
    ],
)
@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions(kernel, stride, low, high, spread, groups):
    b, h, w, c, features = 2, 9, 6, 4, 6

    def convolve(x, k):
        return lax.conv_general_dilated(
            x,
            k,
            (stride, stride),
            [(low, high)] * 2,
            lhs_dilation=(spread, spread),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    have = multiply_adds(
        convolve, like(b, h, w, c), like(kernel, kernel, c // groups, features)
    )
    pairs = [
        windows_by_hand(size, kernel, stride, low, high, spread) for size in (h, w)
    ]
    assert have == b * features * (c // groups) * pairs[0] * pairs[1]


def test_a_transposed_convolution_costs_what_its_kernel_spreads():
    """Every input is multiplied with the kernel once."""
    x, k = like(2, 5, 7, 3), like(2, 2, 3, 4)
    have = multiply_adds(
        lambda x, k: lax.conv_transpose(
            x, k, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        x,
        k,
    )
    assert have == 2 * 5 * 7 * 3 * 4 * 2 * 2


def test_other_layouts_and_dilated_kernels():
    have = multiply_adds(
        lambda x, k: lax.conv_general_dilated(
            x, k, (1, 1), "VALID", rhs_dilation=(2, 1)
        ),
        like(2, 3, 9, 8),
        like(5, 3, 3, 3),
    )
    assert have == 2 * 5 * 5 * 6 * 3 * 9


def test_loops_and_branches():
    a = like(3, 3)

    def scanned(a):
        return lax.scan(lambda s, _: (s @ a, None), a, length=7)[0]

    def nested(a):
        return lax.scan(lambda s, _: (scanned(s), None), a, length=2)[0]

    def counted(a):
        return lax.fori_loop(0, 4, lambda i, s: s @ a, a)

    def until(a):
        return lax.while_loop(lambda s: s[0, 0] < 1, lambda s: s @ a, a)

    def branches(a):
        return lax.cond(a[0, 0] > 0, lambda a: a @ a @ a, lambda a: a @ a, a)

    assert multiply_adds(scanned, a) == 7 * 27
    assert multiply_adds(nested, a) == 2 * 7 * 27
    assert multiply_adds(counted, a) == 4 * 27
    assert multiply_adds(until, a) == 27
    assert multiply_adds(branches, a) == 2 * 27


def test_calls():
    a = like(3, 3)

    @jax.custom_vjp
    def product(a):
        return a @ a

    product.defvjp(lambda a: (a @ a, a), lambda a, g: (g @ a.T + a.T @ g,))
    assert multiply_adds(product, a) == 27
    assert multiply_adds(jax.jit(jax.checkpoint(product)), a) == 27
    assert multiply_adds(jax.vmap(product), like(5, 3, 3)) == 5 * 27
    # The gradient computes the product and two more.
    assert multiply_adds(jax.grad(lambda a: product(a).sum()), a) == 3 * 27

    def in_loop(x, k):
        return convolve_in_loop(x, k, ((1, 1), (1, 1)))

    assert multiply_adds(in_loop, like(1, 4, 5, 2), like(3, 3, 2, 6)) == 20 * 9 * 12


def test_element_wise_arithmetic_is_free():
    assert multiply_adds(lambda a: jax.nn.softmax(a * a + 1).sum(), like(3, 3)) == 0


class TestResiduals:
    def kept(self, function, *args):
        return residual_bytes(lambda *args: (function(*args), ()), *args)

    def test_of_a_product_its_arguments_which_do_not_count(self):
        assert self.kept(lambda p, x: p @ x, like(3, 4), like(4, 5)) == 0

    def test_of_a_chain_what_lies_between(self):
        def chain(p, x):
            return p @ jnp.sin(p @ x)

        # The cosine, and the sine that is multiplied with.
        assert self.kept(chain, like(4, 4), like(4, 5)) == 2 * 4 * 20

    def test_of_a_loop_those_of_every_step(self):
        def loop(p, x):
            return lax.scan(lambda s, _: (p @ s, None), x, length=6)[0]

        assert self.kept(loop, like(4, 4), like(4, 5)) == 6 * 4 * 20

    def test_recomputing_keeps_less(self):
        def chain(p, x):
            for _ in range(3):
                x = jnp.sin(jnp.cos(p @ x))
            return x.sum()

        again = jax.checkpoint(chain)
        args = like(4, 4), like(4, 5)
        assert self.kept(again, *args) == 0 < self.kept(chain, *args)

    def test_nothing_where_there_are_no_parameters(self):
        assert residual_bytes(lambda p, x: (x * 2, ()), {}, like(3)) == 0
