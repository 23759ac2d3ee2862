"""Which of two functions runs: by the backend, and by the mode of differentiation."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops import attention, forward_mode
from earthformer_jax.ops.tuned import choice
from earthformer_jax.ops.tuned.attention import attend
from earthformer_jax.ops.tuned.gelu import gelu


@choice.instead_of(lambda x: x + 1)
def added(x):
    """Adds two, where the plain one adds one."""
    return x + 2


def test_the_backend_decides(monkeypatch):
    assert added(0) == (2 if jax.default_backend() in choice.MEASURED else 1)
    monkeypatch.setattr(choice, "MEASURED", ("of another make",))
    assert added(0) == 1
    monkeypatch.setattr(choice, "MEASURED", (jax.default_backend(),))
    assert added(0) == 2
    with forward_mode():
        assert added(0) == 1
    assert (added.tuned(0), added.plain(0)) == (2, 1)
    assert added.__doc__.startswith("Adds two")


def test_a_function_compiled_outside_is_traced_again_inside():
    traced = []

    @jax.jit
    def inner(x):
        traced.append(choice.in_forward_mode())
        return gelu(x)

    @jax.jit
    def function(x):
        step = jax.checkpoint(lambda x, _: (inner(x), None))
        return jax.lax.scan(step, x, length=2)[0].sum()

    x = jnp.array([0.5, -1.0])
    want, gradient = jax.value_and_grad(function)(x)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(function, (x,), (x,))
    with forward_mode():
        have, change = jax.jvp(function, (x,), (x,))
        np.testing.assert_allclose(have, want, rtol=1e-6)
        np.testing.assert_allclose(change, gradient @ x, rtol=1e-6)
        assert np.isfinite(jax.hessian(function)(x)).all()
        assert traced[-1]
    count = len(traced)
    function(x)  # what was compiled outside is still there
    assert len(traced) == count
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(function, (x,), (x,))


def test_attend_is_the_tuned_one_unless_another_is_asked_for():
    x = jnp.ones((1, 1, 2, 1, 2))

    def program(**options):
        return str(jax.make_jaxpr(lambda x: attend(x, x, x, scale=1.0, **options))(x))

    tuned = "custom_vjp" in program()
    assert tuned == choice.measured()
    for other in ("library", attention.softmax_attention):
        assert "custom_vjp" not in program(implementation=other)


def test_importing_looks_for_no_devices():
    code = (
        "import earthformer_jax.models.earthformer.model, earthformer_jax.ops.tuned\n"
        "from jax.extend import backend\n"
        "import jax._src.xla_bridge as bridge\n"
        "assert not bridge.backends_are_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
