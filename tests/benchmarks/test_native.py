"""The benchmark of functions in C++: its table, and turns."""

import jax

from benchmarks import jax_cpu, native
from earthformer_jax.training import mesh


def test_turns_and_table():
    called = []

    def measure(name, seconds):
        called.append(name)
        return seconds

    measures = {
        "jax": lambda: measure("jax", 0.5),
        "cpp": lambda: measure("cpp", 0.2),
    }
    seconds = native.in_turns(measures, rounds=2)
    assert called == ["jax", "cpp"] * 3
    assert seconds == {"jax": [0.5, 0.5], "cpp": [0.2, 0.2]}
    text = native.table([native.row("enso", "train", 2, seconds)])
    assert "| enso | train | 2 | 500.0 | 200.0 | 2.50 |" in text


def test_of_tiny_models(monkeypatch):
    devices = jax.devices()[:1]  # other tests have made more of them
    monkeypatch.setattr(jax_cpu, "data_mesh", lambda _: mesh.data_mesh(devices))
    (row,) = native.of_models(["tiny"], ["forward"], batch=1, devices=1, rounds=1)
    assert row["what"] == "tiny"
    assert all(seconds > 0 for seconds in row["medians"].values())


def test_of_small_convolutions():
    rows = native.of_convolutions([(1, 4, 16, 16, 3)], rounds=1)
    assert [row["mode"] for row in rows] == [
        "forward",
        "gradient of planes",
        "gradient of kernel",
    ]
    assert rows[0]["what"] == "1 of 4 x 4, 16 to 16, 3 x 3"
