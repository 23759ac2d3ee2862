r"""The cost of ConvLSTM, FAConvLSTM and Keras's ConvLSTM2D, compared.

    python benchmarks/recurrent.py
    python benchmarks/recurrent.py --filters 64 --channels 7 --size 41 --out cost.json
    python benchmarks/recurrent.py --unroll 2 5 10

Parameters and multiply-adds come from the formulas and the compiled program, time and
temporary memory from running it: forward, and a training step (loss, gradient with
respect to parameters and input, gradient descent). The layers take turns, round by
round, so that other load on the machine affects all of them. Keras is left out if it is
not installed (it is not a dependency of this package).

Time falls less than multiply-adds do: the LSTM's five exponentials and hyperbolic
tangents per channel, position and step are the same in all layers, and together with
the surrounding memory traffic they are most of the work of an FAConvLSTM.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from earthformer_jax.models.recurrent import ConvLSTM, FAConvLSTM  # noqa: E402


def dense_cost(c: int, f: int, k: int) -> tuple[int, float]:
    """Parameters, and multiply-adds per pixel and step, of a ConvLSTM."""
    return 4 * f * (k**2 * (c + f) + 1), 4.0 * f * k**2 * (c + f)


def factorised_cost(
    c: int, f: int, k: int, r: int, plane: int, branches: int = 3, every: int = 4
) -> tuple[int, float]:
    """The same for an FAConvLSTM; `every` = 0 means no attention."""
    s, d = max(4, r // 4), max(8, f // 4)
    parameters = r * (c + f) + branches * k**2 * r + branches
    parameters += 2 * r * s + r + s + 4 * f * (r + 1) + 3 * f
    products = r * (c + f) + 2 * branches * k**2 * r + r + 4 * f * r
    if every:
        parameters += 8 * f * d + 6 * f
        products += (8 * f * d + 2 * d * 2 * plane) / every
    return parameters, float(products)


class Layer:
    """A layer as a function of (weights, frames), with its cost by the formulas."""

    def __init__(self, name, parameters, products, init, apply):
        self.name, self.parameters, self.products = name, parameters, products
        self.init, self.apply = init, apply
        self.parts = [(1.0, apply)]  # programs of one step, and how often each runs


def flax_layer(name, cost, make):
    """`make(**more)` gives the layer with further options."""
    layer = make()
    made = Layer(name, *cost, lambda x: layer.init(jax.random.key(0), x), layer.apply)
    every = getattr(layer, "attention_every", 0)
    if every:
        attends, rests = make(attention_every=1), make(attention_every=0)
        made.parts = [(1 / every, attends.apply), (1 - 1 / every, rests.apply)]
    return made


def keras_layer(options, cost):
    """Keras's ConvLSTM2D, or None if Keras 3 on JAX is not available."""
    try:
        import keras
    except ImportError:
        return None
    if keras.__version__ < "3" or keras.backend.backend() != "jax":
        return None
    layer = keras.layers.ConvLSTM2D(**options)

    def init(x):
        if not layer.built:
            layer.build(x.shape)
        return [v.value for v in layer.trainable_variables]

    def apply(weights, x):
        fixed = [v.value for v in layer.non_trainable_variables]
        return layer.stateless_call(weights, fixed, x)[0]

    return Layer(f"ConvLSTM2D, Keras {keras.__version__}", *cost, init, apply)


def layers(a) -> list[Layer]:
    """The layers of the table."""
    options = dict(
        filters=a.filters, kernel_size=a.kernel, padding="same", return_sequences=True
    )
    r = a.bottleneck or max(8, a.filters // 2)
    sizes = (a.channels, a.filters, a.kernel)
    dense = dense_cost(*sizes)
    found = [
        keras_layer(options, dense) if a.keras else None,
        flax_layer("ConvLSTM", dense, lambda: ConvLSTM(**options)),
    ]
    for name, every in (("FAConvLSTM", 4), ("FAConvLSTM, no attention", 0)):
        cost = factorised_cost(*sizes, r, a.size, every=every)

        def make(every=every, **more):
            more = dict(attention_every=every) | more
            return FAConvLSTM(**options, bottleneck=r, **more)

        found.append(flax_layer(name, cost, make))
    cost = factorised_cost(*sizes, r, a.size)
    for steps in a.unroll:

        def dense_layer(steps=steps, **more):
            return ConvLSTM(**options, unroll=steps, **more)

        def factorised_layer(steps=steps, **more):
            return FAConvLSTM(**options, bottleneck=r, unroll=steps, **more)

        suffix = f", unroll={steps}"
        found.append(flax_layer(f"ConvLSTM{suffix}", dense, dense_layer))
        found.append(flax_layer(f"FAConvLSTM{suffix}", cost, factorised_layer))
    return [layer for layer in found if layer]


def training_step(apply):
    """Loss and new weights, and the input's gradient as inside a deeper model."""

    def loss(weights, x):
        return jnp.mean(jnp.square(apply(weights, x)))

    def step(weights, x):
        value, (grads, input_grad) = jax.value_and_grad(loss, (0, 1))(weights, x)
        new = jax.tree.map(lambda w, g: w - 1e-3 * g, weights, grads)
        return value, new, input_grad

    return step


def compiled_cost(layer: Layer, weights, x) -> dict[str, float]:
    """Multiply-adds and transcendentals per pixel of one compiled step."""
    one = jax.ShapeDtypeStruct((1, 1, *x.shape[2:]), x.dtype)
    pixels = x.shape[2] * x.shape[3]
    products = functions = 0.0
    for share, apply in layer.parts:
        cost = jax.jit(apply).lower(weights, one).compile().cost_analysis()
        products += share * cost["flops"] / 2 / pixels
        functions += share * cost["transcendentals"] / pixels
    return dict(products_compiled=products, functions_compiled=functions)


def measure(a) -> list[dict]:
    """One row per layer."""
    shape = (a.batch, a.steps, a.size, a.size, a.channels)
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    rows, programs = [], []
    for layer in layers(a):
        weights = jax.jit(layer.init)(x) if "Keras" not in layer.name else layer.init(x)
        row = dict(
            layer=layer.name,
            parameters=sum(w.size for w in jax.tree.leaves(weights)),
            parameters_formula=layer.parameters,
            products_formula=layer.products,
            **compiled_cost(layer, weights, x),
        )
        functions = dict(forward=layer.apply, training=training_step(layer.apply))
        for name, function in functions.items():
            start = time.perf_counter()
            program = jax.jit(function).lower(weights, x).compile()
            row[f"{name}_compile_s"] = time.perf_counter() - start
            memory = program.memory_analysis().temp_size_in_bytes
            row[f"{name}_temporary_mib"] = memory / 2**20
            programs.append((row, name, program, weights))
            row[f"{name}_ms"] = []
        rows.append(row)
    for turn in range(a.rounds + 1):  # the first one warms up
        for row, name, program, weights in programs:
            start = time.perf_counter()
            jax.block_until_ready(program(weights, x))
            if turn:
                row[f"{name}_ms"].append(1e3 * (time.perf_counter() - start))
    for row in rows:
        for name in ("forward", "training"):
            row[f"{name}_least_ms"] = min(row[f"{name}_ms"])
            row[f"{name}_ms"] = statistics.median(row[f"{name}_ms"])
    return rows


COLUMNS = {
    "parameters": ("parameters", "{:,}"),
    "(formula)": ("parameters_formula", "{:,}"),
    "multiply-adds": ("products_formula", "{:,.0f}"),
    "(compiled)": ("products_compiled", "{:,.0f}"),
    "exp, tanh": ("functions_compiled", "{:,.0f}"),
    "forward ms": ("forward_ms", "{:.1f}"),
    "training ms": ("training_ms", "{:.1f}"),
    "forward MiB": ("forward_temporary_mib", "{:.1f}"),
    "training MiB": ("training_temporary_mib", "{:.1f}"),
    "compiling s": ("training_compile_s", "{:.1f}"),
}


def table(rows: list[dict], reference: str = "ConvLSTM") -> str:
    """The rows as Markdown, followed by how much cheaper each is than `reference`."""
    lines = [["layer", *COLUMNS], ["---"] * (1 + len(COLUMNS))]
    for row in rows:
        cells = [form.format(row[key]) for key, form in COLUMNS.values()]
        lines.append([row["layer"], *cells])
    base = next(row for row in rows if row["layer"] == reference)
    for row in rows:
        if row is not base:
            ratios = [f"{base[k] / row[k]:.2f}" for k, _ in COLUMNS.values()]
            lines.append([f"{reference} / {row['layer']}", *ratios])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Runs the measurements requested on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option, default, meaning in (
        ("batch", 4, "examples"),
        ("steps", 10, "frames"),
        ("size", 32, "height and width"),
        ("channels", 32, "channels of the input"),
        ("filters", 32, "channels of the state"),
        ("kernel", 3, "side of the windows"),
        ("bottleneck", None, "channels of FAConvLSTM's bottleneck"),
        ("rounds", 7, "of timing"),
    ):
        parser.add_argument(f"--{option}", type=int, default=default, help=meaning)
    parser.add_argument(
        "--unroll",
        type=int,
        nargs="*",
        default=[],
        help="also unroll the loop by these numbers of steps",
    )
    parser.add_argument("--keras", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file")
    a = parser.parse_args()
    if min(a.unroll, default=1) < 1:
        parser.error(f"--unroll needs positive numbers of steps; got {a.unroll}")
    rows = measure(a)
    setting = {k: v for k, v in vars(a).items() if k != "out"}
    machine = dict(
        device=jax.devices()[0].device_kind,
        processor=platform.processor() or platform.machine(),
        cores=os.cpu_count(),
        jax=jax.__version__,
    )
    text = ", ".join(f"{k} {v}" for k, v in (setting | machine).items())
    print(f"{text}\nMultiply-adds per pixel and step, times are medians.\n")
    print(table(rows))
    if a.out:
        report = dict(setting=setting, machine=machine, rows=rows)
        a.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
