r"""The efficiency to expect of more devices, from what a step computes and exchanges.

    python benchmarks/expected_scaling.py --config configs/enso.py:paper \
        --per-device 8 --machines 8xH100 v5e-8 --measured --out scaling_note.json

The training step is compiled for 2, 4 and 8 simulated CPU devices with the same number
of examples on each, and the collectives are read from the compiled programs. Nothing is
timed on simulated devices: they share the cores of one machine, so that how fast they
are together says nothing about devices that have their own.

The efficiency on n devices is compute / (compute + exchange), per step, where

    compute    is what a step takes on one device: products / (rate x --share), where
               --share is the part of the peak that a step reaches. --measured adds
               CPUs, with the measured time of a step on one device of this machine;
    exchange   is bytes sent / bandwidth + messages x latency. In a ring an all-reduce
               of S bytes sends 2 (n - 1) / n S from each device. The bandwidth is that
               of the links of a machine (of the slice, for TPUs) as long as they
               suffice, and --network beyond. Messages are the all-reduces after XLA has
               combined them (--combine), each of 2 log2(n) rounds.

A larger model of the same kind need not be compiled: with --like PARAMETERS GFLOP
SECONDS the exchange of gradients is scaled to so many parameters, and products and time
of a step with one example on one CPU device are those that were measured elsewhere.

Nothing is overlapped: gradients that are sent while others are computed make it better,
devices that wait for the slowest one or for data make it worse.
"""

import argparse
import math
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence

sys.path[0] = str(pathlib.Path(__file__).parents[1])

from benchmarks import machine, report  # noqa: E402
from benchmarks.processes import Worker  # noqa: E402
from earthformer_jax.profiling import communication, machines  # noqa: E402
from earthformer_jax.profiling.machines import Machine  # noqa: E402

COMPILED = (2, 4, 8)
DEVICES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def sent(kinds: Mapping[str, Mapping[str, float]], devices: int) -> float:
    """Bytes that one of a number of devices sends in a step.

    Args:
        kinds: collectives of a step, as of `communication.total`; the bytes of their
            results do not depend on the number of devices.
        devices: their number.
    """
    return sum(
        communication.sent_in_ring(kind, row["bytes"], devices)
        for kind, row in kinds.items()
    )


def exchange_seconds(
    kinds: Mapping[str, Mapping[str, float]],
    devices: int,
    *,
    bandwidth: float,
    latency: float,
    combine: float,
) -> float:
    """Time that a step exchanges data for, nothing of it hidden.

    Args:
        kinds: collectives of a step.
        devices: their number.
        bandwidth: bytes a second that a device sends.
        latency: seconds of a round.
        combine: bytes up to which exchanges are combined into one.
    """
    if devices == 1:
        return 0.0
    messages = sum(
        min(row["count"], math.ceil(row["bytes"] / combine)) for row in kinds.values()
    )
    rounds = 2 * math.log2(devices)
    return sent(kinds, devices) / bandwidth + messages * rounds * latency


def bandwidth_of(described: Machine, devices: int, network: float) -> float:
    """Bytes a second that a device sends when there are so many."""
    kind = described.kind
    if kind.link is not None and (
        kind.platform == machines.TPU or devices <= described.per_host
    ):
        return kind.link
    return network


def growing(by_count: Mapping[str, Mapping]) -> list[str]:
    """Kinds of collectives whose results differ in size with the number of devices.

    For them the table is wrong: it takes the sizes of the largest number for all.

    Args:
        by_count: what was found for each number of devices.
    """
    sizes: dict[str, set[float]] = {}
    for kinds in by_count.values():
        for kind, row in kinds.items():
            sizes.setdefault(kind, set()).add(row["bytes"])
    return sorted(kind for kind, found in sizes.items() if len(found) > 1)


def scaled(
    found: Mapping, parameters: float, gflop: float, seconds: float, per_device: int
) -> dict:
    """What a larger model of the same kind computes and exchanges.

    Args:
        found: what the worker found of a step.
        parameters: of the larger model; what is exchanged is proportional to them.
        gflop: 10^9 multiplications and additions of a step with one example.
        seconds: of such a step on one CPU device.
        per_device: examples.
    """
    factor = parameters / found["parameters"]
    kinds = {
        kind: row | {"bytes": row["bytes"] * factor}
        for kind, row in found["kinds"].items()
    }
    return {**found} | dict(
        kinds=kinds,
        parameters=parameters,
        flops_per_device=1e9 * gflop * per_device,
        measured_s=seconds * per_device,
    )


def rows(found: Mapping, described: Machine, a: argparse.Namespace) -> list[dict]:
    """The expected efficiency, one row per number of devices.

    Args:
        found: what the worker found of the step.
        described: the machine; its number of devices is that of each host.
        a: the assumptions of the command line.
    """
    rate = described.kind.rate(found["dtype"])
    seconds = found.get("measured_s")
    if rate is not None:
        seconds = found["flops_per_device"] / (rate * a.share)
    made = []
    for count in DEVICES:
        bandwidth = bandwidth_of(described, count, 1e9 * a.network)
        exchange = exchange_seconds(
            found["kinds"],
            count,
            bandwidth=bandwidth,
            latency=1e-6 * a.latency,
            combine=2**20 * a.combine,
        )
        made.append(
            dict(
                machine=described.kind.name,
                devices=count,
                compute_s=seconds,
                exchange_s=exchange,
                sent_bytes=sent(found["kinds"], count),
                bandwidth=bandwidth if count > 1 else None,
                efficiency=seconds / (seconds + exchange),
            )
        )
    return made


def table(made: Sequence[Mapping]) -> str:
    """The rows as Markdown."""
    columns = {
        "device": lambda row: row["machine"],
        "devices": lambda row: str(row["devices"]),
        "compute ms": lambda row: f"{1e3 * row['compute_s']:.3g}",
        "sent MB": lambda row: f"{row['sent_bytes'] / 1e6:.1f}",
        "at GB/s": lambda row: report.number(
            "{:.4g}", row["bandwidth"] and row["bandwidth"] / 1e9
        ),
        "exchange ms": lambda row: f"{1e3 * row['exchange_s']:.3g}",
        "efficiency": lambda row: f"{row['efficiency']:.2f}",
    }
    return report.table(columns, made)


def _ask(a: argparse.Namespace) -> dict:
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    simulated = environment | {"JAX_NUM_CPU_DEVICES": str(max(COMPILED))}
    arguments = dict(config=a.config, changes=a.changes, per_device=a.per_device)
    with Worker("benchmarks.worker_plan", simulated) as worker:
        found = worker.ask("exchanges", counts=list(COMPILED), **arguments)
    if a.measured:
        one = environment | {"JAX_NUM_CPU_DEVICES": "1"}
        with Worker("benchmarks.worker_plan", one) as worker:
            found |= worker.ask("step_seconds", steps=a.steps, **arguments)
    return found


def main() -> None:
    """Makes the table requested on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/enso.py:quick")
    parser.add_argument(
        "--changes", nargs="*", default=[], help="precision.compute='x' ..."
    )
    parser.add_argument("--per-device", type=int, default=8, help="examples")
    parser.add_argument("--machines", nargs="*", default=["8xH100", "v5e-8"])
    parser.add_argument("--share", type=float, default=0.3, help="of the peak")
    parser.add_argument("--network", type=float, default=50.0, help="GB/s of a device")
    parser.add_argument("--latency", type=float, default=10.0, help="us of a round")
    parser.add_argument("--combine", type=float, default=30.0, help="MiB")
    parser.add_argument(
        "--like",
        nargs=3,
        type=float,
        metavar=("PARAMETERS", "GFLOP", "SECONDS"),
        help="of a larger model",
    )
    parser.add_argument("--measured", action="store_true", help="time CPU steps too")
    parser.add_argument("--steps", type=int, default=5, help="timed steps")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file; .md next to it")
    a = parser.parse_args()
    described = [machines.parse(text) for text in a.machines]
    found = _ask(a)
    if a.like:
        found |= scaled(found, *a.like, a.per_device)
    if a.measured or a.like:
        described.append(machines.parse("CPU"))
    made = [row for one in described for row in rows(found, one, a)]
    print(table(made))
    for kind in growing(found["by_count"]):
        print(f"{kind}: more bytes with more devices, which the table leaves out")
    assumed = {k: v for k, v in vars(a).items() if k != "out"}
    values = dict(machine=machine.describe(), assumed=assumed, found=found, rows=made)
    report.write(a.out, values, table(made))


if __name__ == "__main__":
    main()
