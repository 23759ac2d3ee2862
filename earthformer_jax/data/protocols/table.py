"""The protocols as tables for the documentation.

python -m earthformer_jax.data.protocols.table
"""

from collections.abc import Iterable, Sequence

from earthformer_jax.data.protocols.definition import MEAN, Protocol
from earthformer_jax.data.protocols.registry import OF_INDICES, PROTOCOLS

SHOWN = 12  # digits of a checksum
_WINDOWS = {"paper": "windows of the paper", "released": "every window"}


def markdown() -> str:
    """Tables of the data, of how they are scored, of El Niño, and of checksums."""
    every = PROTOCOLS.values()
    scored = [p for p in every if p.scoring is not None]
    others = [p for p in every if p.scoring is None and p.name != OF_INDICES]
    frames = _table(
        ("protocol", "data", "frames", "examples", "numbers to compare with"),
        (_frames(p) for p in scored),
    )
    months = _table(
        ("protocol", "trained", "validated", "tested", "numbers to compare with"),
        (_months(p) for p in [*others, PROTOCOLS[OF_INDICES]]),
    )
    scores = _table(
        ("protocol", "values", "events", "lead times", "added to counts", "errors"),
        (_scores(p) for p in scored),
    )
    sums = _table(
        ("protocol", "sha256 begins with"),
        ((_code(p.name), _code(p.sha256[:SHOWN])) for p in [*scored, *others]),
    )
    return "\n\n".join([frames, scores, months, sums])


def _frames(protocol: Protocol) -> Sequence[str]:
    fixed = protocol.settings
    size = " x ".join(map(str, protocol.size))
    scaled = {"01": ", scaled to 0..1"}.get(fixed.get("normalization", ""), "")
    dates = ""
    if "train_until" in fixed:
        dates = (
            f": trained to {fixed['train_until']}, validated to "
            f"{fixed['validate_until']}, tested after that"
        )
    every = f" every {protocol.frame}" if protocol.frame else ""
    counts = protocol.examples.items()
    return (
        _code(protocol.name),
        f"`{protocol.data}`, files{dates}",
        f"{fixed['in_len']} -> {fixed['out_len']}{every}, {size} pixels{scaled}",
        ", ".join(f"{count:,} {split}" for split, count in counts),
        protocol.purpose,
    )


def _scores(protocol: Protocol) -> Sequence[str]:
    scoring = protocol.scoring
    assert scoring is not None
    events = "none"
    if scoring.thresholds:
        events = f"from {', '.join(f'{x:g}' for x in scoring.thresholds)} on"
        blocks = [f"{n} x {n}" for n in scoring.pools if n > 1]
        if blocks:
            events += f"; also the maxima of {' and '.join(blocks)} pixels"
    over = "scores of each, then their mean" if scoring.leads == MEAN else "pooled"
    above, below = (f"{x:g}" for x in scoring.epsilon)
    return (
        _code(protocol.name),
        scoring.units,
        events,
        over,
        f"{above} above, {below} below" if any(scoring.epsilon) else "nothing",
        scoring.error_units + (f"; SSIM: {scoring.ssim}" if scoring.ssim else ""),
    )


def _months(protocol: Protocol) -> Sequence[str]:
    fixed, name = protocol.settings, _code(protocol.name)
    if not fixed:
        return name, "", "", "", protocol.purpose
    if "train_until" not in fixed:
        models = f"30 climate models of ICAR-ENSO, {_WINDOWS[fixed['split']]}"
        return name, models, "the next model", "the last model", protocol.purpose
    return (
        name,
        f"{fixed['train_from']} to {fixed['train_until']}",
        f"to {fixed['validate_until']}",
        f"{fixed['test_from']} to {fixed['test_until']}",
        protocol.purpose,
    )


def _code(text: str) -> str:
    return f"`{text}`"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(markdown())
