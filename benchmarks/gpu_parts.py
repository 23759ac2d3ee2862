"""The parts of `benchmarks/gpu.py`: each yields rows, which are dictionaries.

A part is a function of `Setting`. It runs in a process of its own, so that its imports,
its memory and its failures are its own, and looks at the clock between programs.
"""

import contextlib
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Iterator

from benchmarks import cases

TYPES = ("float32", "tf32", "bfloat16")
PRECISION = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "default"}
MODES = ("forward", "train")
PASSES = {"forward": 1, "train": 3}  # a training step counts as three forward passes


@dataclasses.dataclass(frozen=True)
class Setting:
    """What to measure, and until when.

    Attributes:
        cases: of `benchmarks.cases`, with the examples in a batch.
        modes: of `MODES`.
        types: of `TYPES`.
        turns: that are measured.
        side: of the matrices that are multiplied to get the rate of the machine.
        attention: cases of `benchmarks.attention`.
        layer: (examples, t, h, w, c) of the fields that single layers get.
        layers: how many of them; None: all.
        compiled: whether `torch.compile` is measured.
        peer: folder of the official package; empty if it is installed.
        until: `time.time()` at which no further program is started.
    """

    cases: dict[str, int]
    modes: tuple[str, ...]
    types: tuple[str, ...]
    turns: int
    side: int
    attention: tuple[str, ...]
    layer: tuple[int, int, int, int, int]
    layers: int | None
    compiled: bool
    peer: str
    until: float

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.time() > self.until


SCALES = {
    "paper": dict(
        cases={"enso_paper": 16, "nbody": 16, "sevir": 2},
        modes=MODES,
        types=TYPES,
        turns=7,
        side=8192,
        attention=("enso_paper", "nbody", "sevir"),
        layer=(16, 10, 32, 32, 64),
        layers=None,
        compiled=True,
    ),
    "test": dict(
        cases={"tiny": 1},
        modes=MODES,
        types=("bfloat16",),
        turns=1,
        side=64,
        attention=("tiny",),
        layer=(1, 2, 4, 4, 8),
        layers=1,
        compiled=False,
    ),
}


def numbers(setting: Setting) -> Iterator[dict]:
    """Forecasts and gradients on the default device against those on a CPU.

    On both with the full precision of float32; and how far the default device's other
    types are from them.
    """
    import jax

    from benchmarks import attention

    (cpu,), device = jax.devices("cpu")[:1], jax.devices()[0]
    for case in setting.cases:
        want = None
        for kind in ("cpu", *setting.types):
            if setting.is_over:
                return
            place = cpu if kind == "cpu" else device
            kind = "float32" if kind == "cpu" else kind
            have = jax.device_get(_forecast_and_gradients(case, kind, place))
            if want is None:
                want = have
                continue
            yield dict(
                case=case,
                type=kind,
                forecast=attention.difference(have[0], want[0]),
                gradient=_of_norms(have[1], want[1]),
            )


def ours(setting: Setting) -> Iterator[dict]:
    """Time and memory of our Earthformers; and with `ops.tuned`, as on CPUs."""
    import jax

    from earthformer_jax.ops.tuned import choice

    rates = _rates(setting)
    yield dict(rates=rates, device=jax.devices()[0].device_kind)
    usual = choice.MEASURED
    both = {"plain": usual, "tuned": (*usual, jax.default_backend())}
    for functions, backends in both.items():
        if functions == "tuned" and backends[-1] in usual:
            return  # both are the same here
        choice.MEASURED = backends
        for case, batch in setting.cases.items():
            for mode in setting.modes:
                for kind in setting.types:
                    if setting.is_over:
                        return
                    row = dict(case=case, batch=batch, mode=mode, type=kind)
                    row |= dict(functions=functions)
                    with _reported(row):
                        row |= _ours(case, batch, mode, kind, setting.turns)
                        row["share"] = row["gflops"] / rates[kind]
                    yield row


def layers(setting: Setting) -> Iterator[dict]:
    """Single layers and their gradients: the share of the machine's limits."""
    import jax
    import jax.numpy as jnp

    from benchmarks import layers as layers_lib
    from earthformer_jax.profiling.multiply_adds import multiply_adds

    batch, *shape = setting.layer
    memory = _memory_rate(setting)
    rates = _rates(setting)
    for layer in layers_lib.layers(tuple(shape))[: setting.layers]:
        for kind in setting.types:
            dtype = jnp.bfloat16 if kind == "bfloat16" else jnp.float32
            inputs = tuple(jnp.ones((batch, *own), dtype) for own in layer.shapes)
            variables = layer.module.init(jax.random.key(0), *inputs)
            count = multiply_adds(layer.module.apply, variables, *inputs)
            functions = layers_lib.functions(layer.module).items()
            for direction, (function, passes) in functions:
                if setting.is_over:
                    return
                row = dict(layer=layer.name, type=kind, direction=direction)
                with _reported(row), jax.default_matmul_precision(PRECISION[kind]):
                    program = jax.jit(function).lower(variables, inputs).compile()
                    seconds = _seconds(
                        lambda p=program, v=variables, x=inputs: p(v, x), setting.turns
                    )
                    moved = (program.cost_analysis() or {}).get("bytes accessed", 0)
                    gflops = 2 * passes * count / seconds / 1e9
                    row |= dict(seconds=seconds, gflops=gflops)
                    row |= dict(of_products=gflops / rates[kind])
                    row |= dict(of_memory=moved / seconds / 1e9 / memory)
                yield row


def attention(setting: Setting) -> Iterator[dict]:
    """The implementations of attention in cuboids, by shape."""
    import argparse

    from benchmarks import attention as attention_lib

    options = argparse.Namespace(
        batch=4, dropout=0.0, rounds=setting.turns, calls=10 if setting.turns > 1 else 1
    )
    for case in setting.attention:
        for shape in attention_lib.SHAPES[case]:
            for dtype in ("float32", "bfloat16"):
                for direction in attention_lib.DIRECTIONS:
                    if setting.is_over:
                        return
                    row = attention_lib.measure(options, case, shape, dtype, direction)
                    yield row | dict(fastest=attention_lib.fastest(row))


def theirs(setting: Setting) -> Iterator[dict]:
    """The official code in PyTorch, as it comes and compiled."""
    if setting.peer:
        sys.path.insert(0, setting.peer)
    try:
        import torch
        from earthformer.cuboid_transformer import cuboid_transformer
    except ImportError as error:
        yield dict(missing=str(error))
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    yield dict(versions={"torch": torch.__version__}, device=device)
    for case, batch in setting.cases.items():
        for mode in setting.modes:
            for kind in setting.types:
                for compiled in (False, True) if setting.compiled else (False,):
                    if setting.is_over:
                        return
                    row = dict(case=case, batch=batch, mode=mode, type=kind)
                    row |= dict(compiled=compiled)
                    with _reported(row):
                        model = cuboid_transformer.CuboidTransformerModel(
                            **cases.options(case, cases.DROPOUT)
                        )
                        call = _torch_call(torch, model, device, row)
                        row["seconds"] = _seconds(call, setting.turns)
                        if device == "cuda":
                            peak = torch.cuda.max_memory_allocated()
                            row["mib"] = peak / 2**20
                            torch.cuda.reset_peak_memory_stats()
                    yield row


PARTS: dict[str, Callable[[Setting], Iterator[dict]]] = {
    part.__name__: part for part in (numbers, ours, attention, theirs, layers)
}


@contextlib.contextmanager
def _reported(row: dict) -> Iterator[None]:
    """An error of any kind becomes the row's "missing": its first line."""
    try:
        yield
    except Exception as error:
        row["missing"] = (str(error).strip() or repr(error)).splitlines()[0]


def _seconds(call: Callable, turns: int) -> float:
    """Median time of a call whose result is waited for; the first is not counted."""
    import jax

    times = []
    for _ in range(turns + 1):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _rates(setting: Setting) -> dict[str, float]:
    """GFLOP/s of a product of large matrices, by type."""
    import jax
    import jax.numpy as jnp

    found = {}
    for kind in setting.types:
        dtype = jnp.bfloat16 if kind == "bfloat16" else jnp.float32
        matrix = jnp.full((setting.side, setting.side), 0.5, dtype)
        with jax.default_matmul_precision(PRECISION[kind]):
            product = jax.jit(jnp.matmul).lower(matrix, matrix).compile()
        seconds = _seconds(lambda f=product, m=matrix: f(m, m), setting.turns)
        found[kind] = 2 * setting.side**3 / seconds / 1e9
    return found


def _memory_rate(setting: Setting) -> float:
    """GB/s that the device reads and writes in adding 1 to a large array."""
    import jax
    import jax.numpy as jnp

    x = jnp.zeros((4 * setting.side, setting.side), jnp.float32)
    add = jax.jit(lambda x: x + 1).lower(x).compile()
    return 2 * x.nbytes / _seconds(lambda: add(x), setting.turns) / 1e9


def _model(case: str, dropout: float, kind: str):
    import jax.numpy as jnp

    from earthformer_jax.interop import official

    model = official.earthformer_from_config(cases.options(case, dropout))
    dtype = jnp.bfloat16 if kind == "bfloat16" else None
    return model.clone(scan_blocks=True, dtype=dtype)


def _forecast_and_gradients(case: str, kind: str, device):
    """Of one example, without dropout."""
    import jax
    import jax.numpy as jnp

    from benchmarks import worker_jax

    model = _model(case, 0.0, kind)
    params = worker_jax.random_params(model)
    batch = cases.example(case, 1)

    def loss(params, batch):
        forecast = model.apply({"params": params}, batch["inputs"])
        wide = forecast.astype(jnp.float32)
        return jnp.mean(jnp.square(wide - batch["targets"])), wide

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    with jax.default_matmul_precision(PRECISION[kind]):
        (_, forecast), gradients = step(*jax.device_put((params, batch), device))
    return forecast, gradients


def _of_norms(have, want) -> float:
    """Norm of the difference of two trees, relative to that of the second."""
    import jax
    import optax

    off = jax.tree.map(lambda x, y: x - y, have, want)
    return float(optax.tree.norm(off) / optax.tree.norm(want))


def _ours(case: str, batch: int, mode: str, kind: str, turns: int) -> dict:
    import jax

    from benchmarks import worker_jax
    from earthformer_jax.profiling.multiply_adds import multiply_adds

    model = _model(case, cases.DROPOUT, kind)
    params = worker_jax.random_params(model)
    everywhere = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    arrays = jax.device_put(cases.example(case, batch), everywhere)
    count = multiply_adds(model.apply, {"params": params}, arrays["inputs"])
    if mode == "train":
        function, state = worker_jax.training_step(model, params, everywhere)
        given = [state]
    else:
        arrays, function = arrays["inputs"], jax.jit(model.apply)
        given = [jax.device_put({"params": params}, everywhere)]
    start = time.perf_counter()
    with jax.default_matmul_precision(PRECISION[kind]):
        program = function.lower(given[0], arrays).compile()
    compiling = time.perf_counter() - start

    def call():
        result = program(given[0], arrays)
        if mode == "train":
            given[0] = result[0]  # the state before was donated
        return result

    seconds = _seconds(call, turns)
    plan = program.memory_analysis()
    needed = plan.temp_size_in_bytes + plan.argument_size_in_bytes
    return dict(
        seconds=seconds,
        compile_s=compiling,
        mib=needed / 2**20,
        gflops=2 * PASSES[mode] * count / seconds / 1e9,
    )


def _torch_call(torch, model, device: str, row: dict) -> Callable[[], None]:
    """A call of the official model: forward, or a step of training with AdamW."""
    train, kind = row["mode"] == "train", row["type"]
    torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
    torch.backends.cudnn.allow_tf32 = kind == "tf32"
    model = model.to(device).train(train)
    arrays = {
        name: torch.from_numpy(array).to(device)
        for name, array in cases.example(row["case"], row["batch"]).items()
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=cases.LEARNING_RATE)
    run = torch.compile(model) if row["compiled"] else model
    half = torch.autocast(device, torch.bfloat16, enabled=kind == "bfloat16")

    def call():
        with torch.set_grad_enabled(train), half:
            forecast = run(arrays["inputs"])
        if train:
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.mse_loss(forecast.float(), arrays["targets"])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), cases.CLIP_NORM)
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return call
