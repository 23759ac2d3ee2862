r"""Memory per device for fields that are split along their height.

    python benchmarks/field_memory.py --out benchmarks/results/field_memory.json

Compiles the forecast and the training step of a small Earthformer for fields of 384 x
384 and 1536 x 1536 pixels, 13 frames to 12, one example, on 1, 2, 4 and 8 simulated
CPU devices, and runs nothing: memory is what the compiler planned. "times n" is the
memory of a device as a multiple of the n-th part of that on one device. Of collective
operations that give every device all of something (all-gather), the largest result is
shown, as a part of the largest field at the resolution of attention.

The model is the Earthformer of table 9 with fewer channels, blocks and levels, so that
it compiles quickly: the same factors of the stem, one block of axial attention with
global vectors, one of cross-attention, and the head. With --levels 2 a second level of
half the rows and columns has such blocks as well.

Fields are divided along their height where the devices divide it, and otherwise along
their width: --height 372 with --sides 384 and --devices 1 8 shows that.
"""

import argparse
import json
import os
import pathlib
import re
import sys
import time

sys.path[0] = str(pathlib.Path(__file__).parents[1])
DEVICES = (1, 2, 4, 8)
os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(max(DEVICES)))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

from earthformer_jax.models.earthformer.model import Earthformer  # noqa: E402
from earthformer_jax.training import state as state_lib  # noqa: E402
from earthformer_jax.training import step as step_lib  # noqa: E402

FRAMES_IN, FRAMES_OUT = 13, 12
SIDES = (384, 1536)
Plane = tuple[int, int]  # height, width
MODES = ("forward", "train")
MIB = 2**20
# Memory is planned before machine code is made, so that need not be good.
QUICKLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
_GATHERED = re.compile(r"= ([^=]*?) all-gather(?:-start)?\(")
_SHAPE = re.compile(r"\w+\[([\d,]*)\]")


def model_of(plane: Plane, levels: int) -> Earthformer:
    """The Earthformer for frames of this height and width."""
    return Earthformer(
        input_shape=(FRAMES_IN, *plane, 1),
        target_shape=(FRAMES_OUT, *plane, 1),
        base_units=32,
        num_heads=4,
        enc_depth=(1,) * levels,
        dec_depth=(1,) * levels,
        num_global_vectors=4,
        stem="stack_conv",
        stem_stages=((8, (1, 3, 3), 1), (16, (1, 2, 2), 1), (32, (1, 2, 2), 1)),
    )


def compiled(plane: Plane, levels: int, mode: str, devices: int):
    """The program for a number of devices, which has not been run."""
    mesh = jax.make_mesh(
        (devices,),
        ("space",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:devices],
    )
    everywhere = jax.NamedSharding(mesh, jax.P())
    axis = (None, "space") if plane[0] % devices else ("space",)
    split = jax.NamedSharding(mesh, jax.P(None, None, *axis))
    model = model_of(plane, levels)

    def field(frames):
        shape = (1, frames, *plane, 1)
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=split)

    def laid_out(tree):
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), tree
        )

    inputs = field(FRAMES_IN)
    params = jax.eval_shape(model.init, jax.random.key(0), inputs)["params"]
    if mode == "forward":
        function = jax.jit(model.apply, out_shardings=split)
        lowered = function.lower({"params": laid_out(params)}, inputs)
        return lowered.compile(QUICKLY)
    tx = optax.adamw(1e-3)

    def first_state(params):
        return state_lib.TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats={},
            opt_state=tx.init(params),
            ema_params=None,
            rng=jax.random.key(0),
        )

    def update(state, batch):
        return step_lib.update(
            state,
            batch,
            model=model,
            tx=tx,
            learning_rate=optax.constant_schedule(1e-3),
            loss_weights=np.ones((1, 1, 1, 1), np.float32),
        )

    state = laid_out(jax.eval_shape(first_state, params))
    batch = dict(inputs=inputs, targets=field(FRAMES_OUT))
    function = jax.jit(update, donate_argnums=0, out_shardings=everywhere)
    return function.lower(state, batch).compile(QUICKLY)


def device_bytes(program) -> int:
    """Memory of one device, as the compiler planned it."""
    plan = program.memory_analysis()
    return (
        plan.temp_size_in_bytes
        + plan.argument_size_in_bytes
        + (max(plan.output_size_in_bytes - plan.alias_size_in_bytes, 0))
    )


def largest_gathered(text: str) -> int:
    """Elements of the largest result of an all-gather in a compiled program."""
    sizes = [
        int(np.prod([int(n) for n in shape.split(",") if n], dtype=np.int64))
        for result in _GATHERED.findall(text)
        for shape in _SHAPE.findall(result)
    ]
    return max(sizes, default=0)


def main() -> None:
    """Prints a table, and writes the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    parser.add_argument("--height", type=int, help="if it is not the side")
    parser.add_argument("--levels", type=int, default=1, help="of the network")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--devices", type=int, nargs="+", default=DEVICES)
    parser.add_argument("--text", type=pathlib.Path, help="folder for the programs")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    rows = []
    print("| field | program | devices | MiB per device | times n | all-gather |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for side in args.sides:
        plane = (args.height or side, side)
        level = FRAMES_IN * (plane[0] // 12) * (plane[1] // 12) * 32
        for mode in args.modes:
            for devices in args.devices:
                start = time.perf_counter()
                program = compiled(plane, args.levels, mode, devices)
                text = program.as_text() or ""
                row = dict(
                    plane=plane,
                    levels=args.levels,
                    mode=mode,
                    devices=devices,
                    bytes=device_bytes(program),
                    largest_gathered=largest_gathered(text),
                    compile_s=time.perf_counter() - start,
                )
                rows.append(row)
                if args.text:
                    name = f"{plane[0]}x{plane[1]}_{mode}_{devices}.txt"
                    (args.text / name).write_text(text)
                one = next(
                    (
                        r
                        for r in rows
                        if (r["plane"], r["mode"], r["devices"]) == (plane, mode, 1)
                    ),
                    None,
                )
                times = row["bytes"] * devices / one["bytes"] if one else float("nan")
                share = row["largest_gathered"] / level
                print(
                    f"| {plane[0]} x {plane[1]} | {mode} | {devices} | "
                    f"{row['bytes'] / MIB:,.0f} | {times:.2f} | {share:.3f} |",
                    f"{row['compile_s']:.0f} s",
                    flush=True,
                )
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
