"""The benchmark of attention: its table, and one run on a tiny shape."""

import json
import sys

import pytest

from benchmarks import attention


def a_row(direction, **milliseconds):
    """A made-up row; `_` in names of ways stands for ", "."""
    ways = {
        way.replace("_", ", "): dict(median_s=x / 1e3)
        for way, x in milliseconds.items()
    }
    why = {way: "no GPU" for way in attention.WAYS if way not in ways}
    row = attention.SHAPES["tiny"][0]._asdict()
    row |= dict(case="tiny", dtype="float32", direction=direction)
    return row | dict(ways=ways, missing=why)


def test_table_and_reasons():
    rows = [
        a_row("forward", xla=1.5, library_xla=1.25),
        a_row("gradient", xla=3.0, library_xla=4.0, pallas=2.0),
    ]
    text = attention.table(rows)
    line = "| tiny | a few | 2 | 4 x 6 | 8 | float32 | forward | 1.500 | 1.250 | – | – "
    assert line + "| library, xla |" in text
    assert "| gradient | 3.000 | 4.000 | – | 2.000 | pallas |" in text
    assert attention.left_out(rows) == [
        "Left out, library, cudnn (all): no GPU",
        "Left out, pallas (tiny a few float32 forward): no GPU",
    ]


def test_without_a_gpu_kernels_are_left_out():
    assert "--interpret" in attention.missing("pallas", "cpu", False)
    assert attention.missing("pallas", "cpu", True) is None
    assert attention.missing("pallas", "gpu", False) is None
    assert "NVIDIA" in attention.missing("library, cudnn", "cpu", True)
    assert attention.missing("xla", "cpu", False) is None


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_one_run(tmp_path, monkeypatch, capsys, dropout):
    out = tmp_path / "attention.json"
    options = "--cases tiny --batch 1 --rounds 1 --calls 1 --interpret"
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
        missing = {"library, cudnn"} | ({"library, xla"} if dropout else set())
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
