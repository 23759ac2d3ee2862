"""The benchmark of attention: its table, and one run on a tiny shape."""

import json
import sys

import pytest

from benchmarks import attention


def a_row(direction, **milliseconds):
    """A made-up row."""
    ways = {way: dict(median_s=x / 1e3) for way, x in milliseconds.items()}
    why = {way: "no GPU" for way in attention.WAYS if way not in ways}
    row = attention.SHAPES["tiny"][0]._asdict()
    row |= dict(case="tiny", dtype="float32", direction=direction)
    return row | dict(ways=ways, missing=why)


def test_table_and_reasons():
    rows = [
        a_row("forward", xla=1.5, library=1.25),
        a_row("gradient", xla=3.0, tuned=2.0, library=4.0),
    ]
    text = attention.table(rows)
    line = "| tiny | a few | 2 | 4 x 6 | 8 | float32 | forward | 1.500 | – | 1.250 | – "
    assert line + "| library |" in text
    assert "| gradient | 3.000 | 2.000 | 4.000 | – | tuned |" in text
    assert attention.left_out(rows) == [
        "Left out, tuned (tiny a few float32 forward): no GPU",
        "Left out, cudnn (all): no GPU",
    ]


def test_without_a_gpu_cudnn_is_left_out():
    assert "NVIDIA" in attention.missing("cudnn", "cpu")
    assert attention.missing("cudnn", "gpu") is None
    assert attention.missing("xla", "cpu") is None


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_one_run(tmp_path, monkeypatch, capsys, dropout):
    out = tmp_path / "attention.json"
    options = "--cases tiny --batch 1 --rounds 1 --calls 1"
    command = ["attention.py", *options.split(), f"--dropout={dropout}", f"--out={out}"]
    monkeypatch.setattr(sys, "argv", command)
    attention.main()
    found = json.loads(out.read_text())
    assert [(row["dtype"], row["direction"]) for row in found["rows"]] == [
        (dtype, direction)
        for dtype in ("float32", "bfloat16")
        for direction in attention.DIRECTIONS
    ]
    for row in found["rows"]:
        missing = {"cudnn"} | ({"library"} if dropout else set())
        assert set(row["missing"]) == missing
        assert set(row["ways"]) == set(attention.WAYS) - missing
        tolerance = 1e-5 if row["dtype"] == "float32" else 0.05
        for way in row["ways"].values():
            assert way["median_s"] > 0
            assert way["difference"] < tolerance
    printed = capsys.readouterr().out
    assert "tiny a few, float32, forward: xla" in printed
    assert out.with_suffix(".md").read_text().strip() in printed
    if dropout:
        assert "jax.nn.dot_product_attention has no dropout" in printed
