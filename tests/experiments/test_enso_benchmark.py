"""The El Niño benchmark, with trainings that only write what a training would."""

import json
import os
import pathlib
import signal
import threading

import numpy as np
import pytest
import xarray as xr

from earthformer_jax.statistics import xro

ROOT = pathlib.Path(__file__).parents[2]
WINDOWS, LEADS = 160, 14
REFERENCES = ("persistence", "damped_persistence", "lim", "lim_memory", "oscillator")
NOISE = dict(zip(REFERENCES, (2.0, 1.5, 1.0, 0.4, 0.6), strict=True))


@pytest.fixture(scope="module")
def script(experiment):
    return experiment("enso_benchmark")


def write_scores(folder, noise, shift=0, seeds=1):
    """Forecasts that are the truth and noise, as a report writes them."""
    rng = np.random.default_rng(0)
    truth = np.cumsum(rng.normal(size=WINDOWS + LEADS)) * 0.3
    truth = np.lib.stride_tricks.sliding_window_view(truth, LEADS)[:WINDOWS]
    noise = {"model": noise} | NOISE
    index = np.stack([truth + s * rng.normal(size=truth.shape) for s in noise.values()])
    error = np.mean((index - truth) ** 2, axis=2)
    xr.Dataset(
        {
            "index": (("forecast", "window", "lead", "region"), index[..., None]),
            "observed_index": (("window", "lead", "region"), truth[..., None] + shift),
            "squared_error": (("forecast", "window"), error),
            "start_month": ("window", np.arange(WINDOWS) % 12 + 1),
        },
        {"forecast": list(noise), "region": ["Nino3.4"]},
    ).to_netcdf(folder / "skill.nc")
    members = [{"correlation_mean": 0.5, "mse": 0.25 * i} for i in range(seeds)]
    (folder / "scores.json").write_text(json.dumps({"members": members}))


@pytest.fixture
def bench(script, tmp_path, monkeypatch):
    """Runs the benchmark; `bench.ran` are the commands, by row."""
    (tmp_path / "sst.nc").touch()
    noise = {"unet": 0.8, "conv_lstm": 0.9, "earthformer": 0.5, "hybrid": 0.2}

    class Bench:
        ran, status, shift, out = [], {}, {}, tmp_path / "out"

        def __call__(self, *arguments):
            files = [f"--sst={tmp_path / 'sst.nc'}", f"--workdir={self.out}"]
            script.main([*files, *arguments])
            return json.loads((self.out / "results.json").read_text())

    def execute(words, log):
        options = dict(w[2:].split("=", 1) for w in words if w.startswith("--"))
        folder = pathlib.Path(options["workdir"])
        bench.ran.append((folder.name, options))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").touch()
        log.write_text("a line of the log\n")
        if status := bench.status.get(folder.name, 0):
            return status
        name = folder.name if folder.name in noise else "references"
        seeds = int(options.get("config.model.ensemble", 1))
        shift = bench.shift.get(name, 0)
        write_scores(folder, noise.get(name, 2.0), shift, seeds)
        return 0

    bench = Bench()
    monkeypatch.setattr(script, "execute", execute)
    return bench


def test_all_rows_are_compared_with_the_strongest_linear_reference(bench, capsys):
    part = bench("--scale=quick")["sst"]
    assert part["protocol"] == "enso-kaplan-1985-2014" and part["windows"] == WINDOWS
    assert part["strongest"] == "lim_memory"
    rows = part["rows"]
    assert list(rows) == [*REFERENCES, "unet", "conv_lstm", "earthformer", "hybrid"]
    gap = rows["hybrid"]["correlation_mean"] - rows["lim_memory"]["correlation_mean"]
    assert rows["hybrid"]["correlation_mean_minus"] == pytest.approx(gap)
    low, high = rows["hybrid"]["correlation_mean_minus_interval"]
    assert 0 < low < gap < high
    assert rows["lim_memory"]["mse_minus"] == 0
    assert rows["unet"]["mse_minus_interval"][0] > 0
    assert rows["unet"]["mse"] == pytest.approx(0.64, rel=0.1)
    assert len(rows["unet"]["correlation_interval"]) == LEADS
    configs = {name: options["config"].split(":")[1] for name, options in bench.ran}
    assert configs["hybrid"] == "quick" and configs["unet"] == "quick,unet"
    assert rows["hybrid"]["members"]["mse"] == [0, 0.25, 0.5, 0.75, 1]
    printed = capsys.readouterr().out
    assert "about 28 minutes on two CPU cores" in printed
    text = (bench.out / "table.md").read_text()
    assert (
        "| hybrid Earthformer |" in text
        and "MSE 0.000, 0.250, 0.500, 0.750, 1.000;" in text
    )
    assert (bench.out / "skill.png").stat().st_size > 1000


def test_rows_that_are_done_are_not_repeated_and_interrupted_ones_resume(bench):
    bench.status["conv_lstm"] = 143
    with pytest.raises(SystemExit, match="conv_lstm was interrupted; the same command"):
        bench("--only=unet,conv_lstm")
    bench.status["conv_lstm"] = 2
    with pytest.raises(SystemExit, match="failed with exit status 2.*\n.*line of the"):
        bench("--only=unet,conv_lstm")
    bench.status.clear()
    bench("--only=conv_lstm,unet")
    assert [name for name, _ in bench.ran] == ["unet", *["conv_lstm"] * 3]


def test_other_settings_need_another_workdir(bench):
    bench("--only=unet", "--scale=test")
    with pytest.raises(SystemExit, match="other settings: .*out_len=24"):
        bench("--only=unet", "--scale=test", "--leads=24")
    assert len(bench.ran) == 1


def test_settings_reach_the_command(bench, script):
    bench("--only=hybrid", "--scale=test", "--protocol=enso-x", "--leads=24")
    options = bench.ran[0][1]
    assert options["config"].endswith("configs/enso.py:test")
    assert options["config.data.protocol"] == "enso-x"
    assert options["config.data.out_len"] == "24"
    assert options["config.model.ensemble"] == "2"
    assert options["config.model.base"] == "lim_field_memory"


def test_other_windows_are_refused(bench):
    bench.shift["unet"] = 0.1
    with pytest.raises(SystemExit, match="unet was scored on other windows than ref"):
        bench("--only=references,unet", "--scale=test")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only=unett"], "--only=unett: expected some of references, unet"),
        (["--leads=2"], "--leads=2: expected at least 3"),
        (["--indices=none.nc"], "--indices=none.nc does not exist"),
        (["--sst="], "--sst=FILE is missing"),
    ],
)
def test_wrong_arguments_are_refused(bench, capsys, arguments, message):
    with pytest.raises(SystemExit):
        bench(*arguments)
    assert message in capsys.readouterr().err
    assert not bench.ran


def test_a_signal_reaches_the_command_and_its_status_is_returned(script, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    waits = "trap 'exit 143' TERM; echo begun; while :; do sleep 0.05; done"
    words = ["bash", "-c", waits]
    assert script.execute(words, tmp_path / "log.txt") == 143
    assert "begun" in (tmp_path / "log.txt").read_text()
    assert signal.getsignal(signal.SIGTERM) is before


def test_indices_are_compared_without_sst(script, tmp_path):
    rng = np.random.default_rng(0)
    x = np.zeros((360, 10))
    for i in range(1, 360):
        x[i] = 0.6 * x[i - 1] + rng.normal(size=10)
    time = np.arange("1980-01", "2010-01", dtype="datetime64[M]")
    xr.Dataset(
        {n: ("time", v) for n, v in zip(xro.INDICES, x.T, strict=True)},
        {"time": time.astype("datetime64[ns]")},
    ).to_netcdf(tmp_path / "indices.nc")
    script.main(
        [f"--indices={tmp_path / 'indices.nc'}", f"--workdir={tmp_path}", "--leads=6"]
    )
    part = json.loads((tmp_path / "results.json").read_text())["indices"]
    assert part["protocol"] == "enso-oras5-xro"
    assert part["rows"]["persistence"]["correlation"][0] == pytest.approx(0.6, abs=0.1)
    assert len(part["rows"]["xro"]["correlation"]) == 6
    assert "| XRO, nonlinear |" in (tmp_path / "table.md").read_text()
