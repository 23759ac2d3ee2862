"""Processors without instructions for a type are known, and what to use instead."""

import types

import pytest

from earthformer_jax.profiling.machines import KINDS
from earthformer_jax.run.planning import making
from earthformer_jax.training.precision import processor


def device(platform, **more):
    return types.SimpleNamespace(platform=platform, **more)


@pytest.mark.parametrize(
    ("text", "lacking"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f\n", ["bfloat16", "float16"]),
        ("flags\t\t: fpu avx512_bf16\n", ["float16"]),
        ("flags\t\t: amx_bf16 avx512_fp16\n", []),
        ("Features\t: fp asimd asimdhp bf16\n", []),
        ("nothing is known\n", []),
    ],
)
def test_cpus(tmp_path, text, lacking):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    names = ("float32", "bfloat16", "float16")
    found = [x for x in names if processor.lacks(x, device("cpu"), path)]
    assert found == lacking
    assert not processor.lacks("bfloat16", device("cpu"), tmp_path / "none")


def test_cpus_with_instructions_gain_nothing_from_them(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("flags\t\t: fpu avx512_bf16 amx_bf16\n")
    (remark,) = processor.remarks("bfloat16", device("cpu"), "this CPU", path)
    assert remark.startswith("this CPU multiplies bfloat16 itself (amx_bf16, avx512_bf")
    assert remark.endswith("use config.precision.compute=float32")
    assert not processor.remarks("float32", device("cpu"), "this CPU", path)
    path.write_text("flags\t\t: fpu\n")
    (remark,) = processor.remarks("bfloat16", device("cpu"), "this CPU", path)
    assert "has no instructions" in remark
    path.write_text("nothing is known\n")
    assert not processor.remarks("bfloat16", device("cpu"), "this CPU", path)
    ampere = device("gpu", compute_capability="8.0")
    assert not processor.remarks("bfloat16", ampere, "A100", path)


def test_other_devices():
    volta, ampere = (device("gpu", compute_capability=x) for x in ("7.0", "8.0"))
    assert processor.lacks("bfloat16", volta) and not processor.lacks("float16", volta)
    assert not processor.lacks("bfloat16", ampere)
    assert not processor.lacks("bfloat16", device("gpu"))
    assert processor.lacks("float16", device("tpu"))
    assert not processor.lacks("bfloat16", device("tpu"))


def test_plans_for_described_devices_say_so():
    (note,) = making._unsuited(KINDS["V100-16GB"], "bfloat16")
    assert note == (
        "V100-16GB has no instructions for config.precision.compute=bfloat16, which is "
        "computed in float32 there, with conversions before and after; use "
        "config.precision.compute=float16"
    )
    (note,) = making._unsuited(KINDS["v5e"], "float16")
    assert note.endswith("compute=bfloat16")
    for compute in ("float32", "bfloat16", "float16"):
        assert making._unsuited(KINDS["H100"], compute) == []
    assert making._unsuited(KINDS["CPU"], "float32") == []
