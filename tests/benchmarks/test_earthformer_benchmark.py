"""The benchmarks: their models, their arithmetic, their tables, one whole run."""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import cases, earthformer, layers, machine, report
from earthformer_jax import models
from earthformer_jax.interop import official
from earthformer_jax.run import config_files

ROOT = pathlib.Path(__file__).parents[2]


def side(seconds, peak, losses=(None, None, None)):
    """One side of a row, of three calls."""
    return dict(
        median_s=seconds,
        seconds=[seconds] * 3,
        losses=list(losses),
        peak_mib=peak,
        total_mib=peak + 100,
        resting_mib=10.0,
    )


def a_report(with_official=True):
    """A made-up report of one forward pass and one training step."""
    rows = []
    for mode, dropout, seconds in (("forward", 0.0, 0.5), ("train", 0.1, 2.0)):
        row = dict(case="nbody", mode=mode, batch=2, dropout=dropout)
        row |= dict(multiply_adds=10_000_000_000, ours=side(seconds, 1000.0))
        row["official"] = side(3 * seconds, 2500.0) if with_official else None
        rows.append(row | earthformer.ratios(row, 100.0))
    rows[0]["compilation"] = dict(
        cold=dict(lower_s=1.0, compile_s=12.0), cached=dict(lower_s=1.0, compile_s=0.5)
    )
    return dict(
        machine=machine.describe() | dict(versions={"jax": "0.10.2"}),
        settings={},
        matrix_gflops={"JAX": 100.0, "PyTorch": 80.0},
        missing="" if with_official else "No module named 'torch'",
        differences={"nbody": 1e-6} if with_official else {},
        rows=rows,
    )


class TestCases:
    @pytest.mark.parametrize(
        "case, parameters", [("nbody", 6_702_109), ("enso", 1_394_325)]
    )
    def test_models_have_the_official_number_of_parameters(self, case, parameters):
        model = official.earthformer_from_config(cases.options(case))
        inputs = cases.example(case, batch=1)["inputs"]
        shapes = jax.eval_shape(model.init, jax.random.key(0), inputs)
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters

    @pytest.mark.parametrize(
        "case, file, variant, changes",
        [
            ("enso", "enso", "released", {}),
            ("enso_paper", "enso", "paper", {}),
            ("sevir", "sevir", "paper", {}),
            (
                "nbody",
                "nbody_mnist",
                "paper",
                dict(
                    num_global_vectors=0, use_global_self_attn=False, pos_embed="t+hw"
                ),
            ),
        ],
    )
    def test_they_are_those_of_the_configs(self, case, file, variant, changes):
        options = cases.options(case, dropout=cases.DROPOUT)
        config = config_files.load(f"{file}:{variant}")
        want = models.create_model(
            **dict(config.model) | changes,
            input_shape=options["input_shape"],
            target_shape=options["target_shape"],
        )
        have = official.earthformer_from_config(options)
        around = {field.name for field in dataclasses.fields(models.CommonOptions)}
        for name in sorted(models.fields("earthformer").keys() - around):
            if name.endswith("_pattern"):  # one name, or one for each level
                patterns = getattr(have, name)
                assert set(patterns) == {getattr(want, name)}, name
            elif name in ("stages", "match_reference", "stem_scale", "stem_stages"):
                assert have.stages == want.stages
            elif name not in (
                "block_units",
                "stem_conv_layers",
                "head_conv_layers",
                "scan_blocks",
            ):
                assert getattr(have, name) == getattr(want, name), name

    def test_examples_are_the_same_in_every_process(self):
        first, second = cases.example("tiny", 2), cases.example("tiny", 2)
        np.testing.assert_array_equal(first["inputs"], second["inputs"])
        assert first["targets"].shape == (2, 3, 16, 16, 1)
        assert first["targets"].dtype == np.float32

    def test_unknown_ones_are_refused(self):
        with pytest.raises(ValueError, match="the cases are nbody"):
            cases.options("mnist")


class TestMachine:
    @pytest.mark.parametrize(
        "batch, most, want", [(2, 2, 2), (3, 2, 1), (8, 6, 4), (1, 64, 1)]
    )
    def test_devices_divide_the_batch(self, batch, most, want):
        assert machine.largest_divisor(batch, most) == want

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_the_peak_is_that_since_it_was_forgotten(self):
        machine.forget_peak()
        before = machine.held_mib()
        big = np.ones(2**23)  # 64 MiB
        del big
        assert 60 < machine.peak_mib() - before < 80
        machine.forget_peak()
        assert machine.peak_mib() - before < 10


class TestNumbers:
    def test_ratios(self):
        forward, train = a_report()["rows"]
        assert forward["time_ratio"] == train["time_ratio"] == 3.0
        assert forward["memory_share"] == 0.4
        assert forward["total_memory_share"] == pytest.approx(1100 / 2600)
        assert forward["gflops"] == pytest.approx(40.0)  # 2 * 10 / 0.5
        assert train["gflops"] == pytest.approx(30.0)  # 3 * 2 * 10 / 2
        assert train["share"] == pytest.approx(0.3)

    def test_losses_are_compared_where_there_is_no_dropout(self):
        row = dict(mode="train", dropout=0.0, multiply_adds=1)
        row |= dict(
            ours=side(1.0, 1.0, (1.0, 2.0, 4.0)),
            official=side(1.0, 1.0, (1.0, 2.0, 5.0)),
        )
        assert earthformer.ratios(row, 1.0)["loss_difference"] == pytest.approx(0.2)
        row["dropout"] = 0.1
        assert earthformer.ratios(row, 1.0)["loss_difference"] is None

    def test_largest_difference(self):
        official_forecast = np.array([1.0, -4.0])
        ours = np.array([1.5, -4.0])
        assert earthformer.largest_difference(ours, official_forecast) == 0.125
        with pytest.raises(earthformer.DisagreementError, match="shapes"):
            earthformer.largest_difference(ours[:1], official_forecast)


class TestCompiled:
    """The official code under `torch.compile`."""

    TRIED = {
        "default": dict(first_call_s=30.0, median_s=1.0),
        "reduce-overhead": dict(first_call_s=31.0, median_s=0.8),
        "max-autotune-no-cudagraphs": dict(missing="no compiler for C++"),
    }

    def test_the_fastest_of_those_that_run(self):
        assert earthformer.fastest(self.TRIED) == "reduce-overhead"
        failed = {"default": dict(missing="no compiler for C++")}
        assert earthformer.fastest(failed) == earthformer.fastest({}) == ""

    def test_the_table_has_a_row_for_each_mode(self):
        made = a_report()
        row = made["rows"][0]
        row["tried"] = self.TRIED
        row["compiled"] = side(0.75, 2000.0) | dict(mode="reduce-overhead")
        row |= earthformer.ratios(row, 100.0)
        assert row["compiled_ratio"] == 1.5
        text = report.earthformer(made)
        start = "| nbody | forward | 2 |"
        best = f"{start} reduce-overhead | 0.800 | 31 | 0.750 | 1.50 | 2,000 | 2,100 |"
        assert best in text
        assert f"{start} default | 1.00 | 30 | – | – | – | – | – |" in text
        assert "| – | – | – | – | – | – | no compiler for C++ |" in text
        assert "first call" not in report.earthformer(a_report())


class TestTables:
    def test_both_sides(self):
        text = report.earthformer(a_report())
        row = "| nbody | train | 2 | 2.00 | 6.00 | 3.00 | 1,000 | 2,500 | 0.40 |"
        row += " 1,100 | 2,600 | 0.42 | 30 |"
        assert row + " 30% |" in text
        assert "| nbody | forward | 2 | 0.500 | 1.50 |" in text
        assert "JAX 100 GFLOP/s, PyTorch 80 GFLOP/s" in text
        assert "| nbody | forward | 1.0 | 12.0 | 1.0 | 0.5 |" in text

    def test_ours_alone(self):
        text = report.earthformer(a_report(with_official=False))
        assert "not measured: No module named 'torch'" in text
        row = (
            "| nbody | train | 2 | 2.00 | – | – | 1,000 | – | – | 1,100 | – | – | 30 |"
        )
        assert row + " 30% |" in text

    @pytest.mark.parametrize(
        "text, message",
        [
            (None, "cannot read .*No such file"),
            ("{", "cannot read"),
            ("[]", "--out"),
            ('{"rows": [1]}', "--out"),
            ('{"rows": [{"sides": {}}]}', "it needs rows with ours"),
        ],
    )
    def test_a_file_of_something_else_is_refused(self, tmp_path, text, message):
        path = tmp_path / "rows.json"
        if text is not None:
            path.write_text(text)
        with pytest.raises(argparse.ArgumentTypeError, match=message):
            report.written("ours")(str(path))

    def test_reports_of_one_machine_are_joined(self):
        first, second = a_report(), a_report(with_official=False)
        second["matrix_gflops"] = {"JAX": 120.0}
        text = report.earthformer(report.joined([first, second]))
        assert text.count("| nbody | train | 2 |") == 2
        assert "JAX 120 GFLOP/s, PyTorch 80 GFLOP/s" in text
        assert "No module named 'torch'" in text and "nbody 1.0e-06" in text
        second["machine"] |= dict(processor="another")
        with pytest.raises(ValueError, match="one machine was expected"):
            report.joined([first, second])

    def test_layers(self):
        rows = [
            dict(
                level=0,
                layer="feed-forward",
                multiply_adds=passes * 10**8,
                temporary_mib=2.5 * passes,
                seconds=[0.01 * passes] * 3,
            )
            for passes in (1, 3)
        ]
        rows = [row | layers.rates(row, 100.0) for row in rows]
        line = "| 0 | feed-forward | 100 / 300 | 10.0 / 30.0 | 2.5 / 7.5 | 20 / 20 |"
        assert line in layers.table(rows)


@pytest.mark.slow
def test_a_whole_run_without_the_official_code(tmp_path):
    out = tmp_path / "report.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "earthformer.py")]
    # A training step, which takes as long again, has the same way to the report.
    options = "--cases tiny --modes forward --batch 2 --rounds 1".split()
    subprocess.run(
        [*command, *options, f"--out={out}"], check=True, timeout=300, cwd=tmp_path
    )
    found = json.loads(out.read_text())
    assert "No module named" in found["missing"]
    assert [row["mode"] for row in found["rows"]] == ["forward"]
    for row in found["rows"]:
        assert row["official"] is None
        assert row["ours"]["median_s"] > 0
        assert row["multiply_adds"] > 0
        cold, cached = (row["compilation"][k]["compile_s"] for k in ("cold", "cached"))
        assert cached < cold
    table = subprocess.run(
        [*command, f"--table={out}"], check=True, capture_output=True, text=True
    ).stdout
    assert table.strip() == out.with_suffix(".md").read_text().strip()


def test_a_peer_without_the_package_is_refused(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "earthformer.py")]
    found = subprocess.run(
        [*command, f"--peer={tmp_path}"], capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 2
    assert "holds no package `earthformer`; give its src" in found.stderr
