"""The measurement of first forecasts, without the processes that it starts."""

import json

import pytest
import xarray as xr

from benchmarks import latency


@pytest.fixture
def calls(monkeypatch):
    """The states of the processes, which take 8, 4 and 2 seconds."""
    made = []

    def call(arguments, cache, state):
        path = next(x for x in arguments if x.startswith("--output="))
        xr.Dataset({"a": ("x", [1.0, 2.0])}).to_netcdf(path.removeprefix("--output="))
        made.append((state, cache.name, arguments[0]))
        seconds = {"cold": 8.0, "cache": 4.0, "kept": 2.0}[state]
        return dict(seconds=2 * seconds, cpu=seconds)

    monkeypatch.setattr(latency, "call", call)
    return made


def test_the_states_take_turns(calls, tmp_path, capsys):
    out = tmp_path / "out.json"
    latency.main(["--models", "enso-sst", "--rounds=2", f"--out={out}"])
    assert [state for state, *_ in calls] == 3 * ["cold", "cache", "kept"]
    assert {given for *_, given in calls} == {"--model=enso-sst"}
    assert {(state, folder) for state, folder, _ in calls} == {
        ("cold", "cold"),
        ("cache", "warm"),
        ("kept", "warm"),
    }
    heading, _, row = capsys.readouterr().out.splitlines()[-3:]
    cells = dict(zip(heading.split(" | "), row.split(" | "), strict=True))
    assert (cells["kept CPU s"], cells["kept s"]) == ("2.00", "4.00")
    assert cells["kept / cold, CPU"] == "0.25" and "yes" in row
    (found,) = json.loads(out.read_text())["rows"]
    assert len(found["seconds"]["cold"]) == 2 and found["equal"]


def test_other_values_are_told(tmp_path):
    paths = [tmp_path / f"{x}.nc" for x in "ab"]
    for path, value in zip(paths, (1.0, 1.5), strict=True):
        xr.Dataset({"a": ("x", [value])}).to_netcdf(path)
    assert latency.are_equal([paths[0], paths[0]])
    assert not latency.are_equal(paths)
