"""Forecasts when new files appear, and flags of the command."""

import logging
import signal
import sys
from unittest import mock

import pytest
import xarray as xr
from absl import flags
from absl.testing import flagsaver

from earthformer_jax import main
from earthformer_jax.run import api
from earthformer_jax.run.forecasting import making, watching
from earthformer_jax.run.run import Run
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import signals
from earthformer_jax.training.signals import Stopped
from tests.data import cube_files

DAYS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Days, and a run trained on them."""
    folder = tmp_path_factory.mktemp("watched")
    cube_files.write(cube_files.dataset(DAYS), folder / "days.nc")
    changes = {"data.path": str(folder / "days.nc")}
    run = Run(api.load_config("custom:test,persistence", changes), folder / "run")
    assert run.train()
    return folder


class Ended(Exception):
    pass


@pytest.fixture
def watch(folder, tmp_path):
    """Watches `tmp_path / "in"`; the n-th action is done in the n-th interval."""
    trained = Run.of(folder / "run").load()
    (tmp_path / "in").mkdir()

    def watch(*actions, source=str(tmp_path / "in" / "*.nc"), **options):
        left, written = iter(actions), []

        def sleep(seconds):
            assert seconds == 3.0
            for action in left:
                return action() if action else None
            raise Ended

        with pytest.raises(Ended):
            watching.watch(
                trained,
                making.request(source),
                None,
                tmp_path / "out",
                interval=3.0,
                written=lambda path, outline: written.append(path),
                shown=lambda made, outline: made,
                sleep=sleep,
                **options,
            )
        return [path.name for path in written]

    return watch


def put(path, last, first=0):
    """An action: writes the days from `first` to before `last` into a file."""

    def action():
        cube_files.write(cube_files.dataset(DAYS).isel(time=slice(first, last)), path)

    return action


def date(day):
    return str(cube_files.dataset(DAYS)["time"].values[day])[:10]


def test_new_files_and_longer_ones(watch, tmp_path):
    file = tmp_path / "in" / "a.nc"
    more = put(tmp_path / "in" / "b.nc", 30, first=20)
    made = watch(None, put(file, 20), None, None, more, None, put(file, 20), None, None)
    names = [f"in_{date(19)}.nc", f"in_{date(29)}.nc"]
    assert made == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)


def test_a_file_that_still_grows_is_left_alone(watch, tmp_path):
    file = tmp_path / "in" / "a.nc"
    whole = tmp_path / "whole.nc"
    put(whole, 20)()
    content = whole.read_bytes()

    def part(share):
        return lambda: file.write_bytes(content[: int(share * len(content))])

    assert watch(part(0.3), part(0.6), part(1), None) == [f"in_{date(19)}.nc"]


def test_what_cannot_be_read_is_named_once_and_tried_again(watch, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="earthformer_jax")
    file = tmp_path / "in" / "a.nc"
    made = watch(lambda: file.write_text("no"), None, None, None, put(file, 20), None)
    assert made == [f"in_{date(19)}.nc"]
    (said,) = [x.message for x in caplog.records if "no forecast yet" in x.message]
    assert "a.nc" in said


def test_existing_forecasts_are_made_again_if_asked(watch, tmp_path):
    file = tmp_path / "in" / "a.nc"
    put(file, 20)()
    assert watch(None) == [f"in_{date(19)}.nc"]
    assert watch(None) == []
    assert watch(None, overwrite=True) == [f"in_{date(19)}.nc"]


def test_what_cannot_be_watched(folder, tmp_path):
    trained = Run.of(folder / "run").load()
    with pytest.raises(ConfigError, match="must be an existing folder"):
        watching.watch(
            trained,
            making.request("in/*.nc"),
            str(tmp_path / "one.nc"),
            tmp_path,
            interval=1,
            written=lambda path, outline: None,
            shown=lambda made, outline: made,
        )


@pytest.fixture
def call(folder, monkeypatch):
    """Runs the command line; returns the exit status."""

    def call(*arguments):
        argv = ["main", f"--workdir={folder / 'run'}", *map(str, arguments)]
        with flagsaver.flagsaver(), mock.patch.object(sys, "argv", argv):
            flags.FLAGS.unparse_flags()
            try:
                return main.main(main._parse_flags(argv))
            except SystemExit as exit:
                return exit.code
            finally:
                flags.FLAGS.mark_as_parsed()

    monkeypatch.setattr(main.cpu, "use_cores", lambda *_: None)
    handlers = {number: signal.getsignal(number) for number in signals._SIGNALS}
    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)
    package_logger = logging.getLogger("earthformer_jax")
    package_logger.handlers.clear()
    package_logger.propagate = True


class TestCommand:
    def test_all_at_once(self, call, folder, tmp_path, capsys):
        output = tmp_path / "new.zarr"
        assert not call(
            "--mode=forecast",
            f"--input={folder}/d*.nc",
            f"--output={output}",
            f"--start={date(10)}",
            f"--stop={date(20)}",
            "--every=3",
            "--steps=5",
        )
        with xr.open_zarr(output) as made:
            assert dict(made["T"].sizes) == {
                "forecast_reference_time": 4,
                "lead_time": 5,
                **{x: cube_files.dataset(DAYS).sizes[x] for x in ("lat", "lon")},
            }
        printed = capsys.readouterr()
        written, *figures = printed.out.splitlines()
        assert written == f"forecast written: {output}"
        assert sorted(figures) == [f"figure: {tmp_path}/new_{x}.png" for x in "PT"]
        assert (tmp_path / "new_T.png").stat().st_size > 1000
        assert "4 forecasts of 5 frames from days.nc" in printed.err

    def test_packed(self, call, folder, tmp_path):
        for name, more in (("a.nc", []), ("b.nc", ["--pack"])):
            assert not call(
                "--mode=forecast", f"--output={tmp_path / name}", *more, "--nofigures"
            )
        with xr.open_dataset(tmp_path / "b.nc") as packed:
            assert packed["T"].encoding["dtype"] == "int16"
        assert not list(tmp_path.glob("*.png"))

    @pytest.mark.parametrize("mode", ["train", "summary"])
    @pytest.mark.parametrize(
        "flag",
        ["input=a.nc", "output=b.nc", "start=all", "stop=2000", "every=2", "steps=2"]
        + [
            "members=2",
            "watch",
            "nofigures",
            "interval=3",
            "anomalies",
            "pack",
            "overwrite",
        ],
    )
    def test_flags_of_another_mode(self, call, mode, flag, capsys):
        assert call(f"--mode={mode}", f"--{flag}") == 2
        name = flag.partition("=")[0].removeprefix("no")
        assert f"error: --{name} needs --mode=forecast" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--interval=3"], "--interval needs --watch"),
            (["--steps=0"], "--steps=0"),
            (["--every=2"], "every=2 has no effect on a single forecast"),
            (["--members=3"], "all members would be equal"),
            (["--input=none/*.nc"], "none/*.nc"),
            (["--start=soon"], "start='soon' is not a date"),
            (["--watch", "--output=none/x.nc"], "must be an existing folder"),
            (["--model=mine"], "--model=mine: leave out --config and --workdir"),
        ],
    )
    def test_wrong_input(self, call, folder, more, message, capsys):
        before = sorted(folder.rglob("*"))
        assert call("--mode=forecast", *more) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error
        assert sorted(folder.rglob("*")) == before

    def test_an_existing_file_is_known_before_the_input_is_read(
        self, call, tmp_path, capsys
    ):
        (tmp_path / "there.nc").write_text("mine")
        output = f"--output={tmp_path / 'there.nc'}"
        assert call("--mode=forecast", "--input=none.nc", output) == 2
        assert "there.nc exists; choose another --output" in capsys.readouterr().err
        assert not call("--mode=forecast", output, "--overwrite", "--nofigures")
        assert (tmp_path / "there.nc").read_bytes() != b"mine"

    def test_a_signal_leaves_nothing_behind(self, call, tmp_path, monkeypatch, capsys):
        def stopping(*_, **__):
            raise Stopped
            yield

        monkeypatch.setattr(making, "chunks", stopping)
        output = tmp_path / "new.nc"
        before = signal.getsignal(signal.SIGTERM)
        assert call("--mode=forecast", f"--output={output}") == 143
        assert not list(tmp_path.iterdir())
        # The one of before may end the program while files are removed.
        assert signal.getsignal(signal.SIGTERM) != before
