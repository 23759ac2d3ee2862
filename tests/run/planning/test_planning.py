"""Plans of a toy training: what is counted, what fits, and what would."""

import dataclasses
import functools
import json
import pathlib

import jax
import pytest

from earthformer_jax.profiling import machines
from earthformer_jax.run.planning import command, described, making, remedies
from earthformer_jax.run.planning.step import StepMemory
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import mesh as mesh_lib
from tests.training import toy

NOWHERE = pathlib.Path("unused")
MIB = 2**20


def parts(config):
    return toy.dataset(), toy.ToyModel(features=config.model.features)


@functools.cache
def made():
    """The plan of the toy, on the devices at hand."""
    config = toy.config(optim__ema_decay=0.9, train__micro_batch=8)
    return making.make(config, NOWHERE, None, parts)


class TestMemory:
    def test_state_and_batches(self):
        step, size = made().step, 3 * 4 * 4
        parameters = 8 * size + 8 + 2 * 8 + 8 * size + size
        assert made().parameter_count == parameters
        assert step.parameters == step.averaged == 4 * parameters
        assert step.optimizer >= 2 * step.parameters
        assert step.statistics == 0
        batch = 2 * 4 * size * made().batch_size // step.devices
        assert step.batch == step.next_batch == batch
        assert made().flops == 6 * 2 * 8 * size * made().batch_size

    def test_the_peak_is_their_sum(self):
        step = made().step
        assert step.peak == step.program + step.next_batch + step.runtime
        counted = step.parameters + step.averaged + step.optimizer + step.batch
        counted += step.activations + step.results
        assert counted <= step.program <= counted + 1024  # the key and the step
        assert step.activations > step.parameters  # their gradient at least

    def test_it_fits(self):
        assert made().fits and not made().tries and not made().advice
        assert made().available == mesh_lib.host_bytes() // len(jax.devices())

    def test_parts_of_a_described_machine(self):
        devices = jax.devices()[:1]
        machine = machines.Machine(machines.KINDS["H100"], 1, 1)
        plan = making.make(toy.config(), NOWHERE, machine, parts)
        assert plan.described and plan.platform == "GPU"
        assert plan.available == 60_000_000_000
        assert plan.rate == 495e12
        assert plan.step.devices == len(devices) and plan.step.runtime == 0
        assert any("an estimate for others" in note for note in plan.notes)


class TestWhatWouldFit:
    def plan(self, monkeypatch, share):
        """A plan where only a share of the working memory is there."""
        step = made().step
        least = step.peak - step.activations
        there = int(least + share * step.activations)
        monkeypatch.setattr(mesh_lib, "host_bytes", lambda: there * len(jax.devices()))
        config = toy.config(optim__ema_decay=0.9, train__micro_batch=8)
        return making.make(config, NOWHERE, None, parts)

    @pytest.mark.slow
    def test_smaller_batches_are_tried(self, monkeypatch):
        plan = self.plan(monkeypatch, 0.97)
        assert not plan.fits
        assert plan.tries and "--config.train.micro_batch=" in plan.tries[0].flags
        for tried in plan.tries:
            assert tried.fits == (tried.peak <= plan.available)

    def search(self, fitting, **changes):
        """What is tried if only some settings fit."""
        config = remedies.changed(making.config_lib.completed(toy.config()), changes)

        def attempt(changes):
            flags = remedies.words(changes)
            return making.Try(flags, 10, flags == fitting)

        step = dataclasses.replace(made().step, devices=4, micro_batch=8)
        return [one.flags for one in making._search(config, step, 10**9, attempt)]

    def test_the_mildest_that_fits_is_the_last_one_tried(self):
        changes = {"train.micro_batch": 8, "model.name": "earthformer"}
        flags = [
            "--config.train.micro_batch=4",
            "--config.model.remat=blocks",
            "--config.model.remat=blocks --config.train.micro_batch=4",
            "--config.parallel.model=4",
            "--config.parallel.space=4",
        ]
        assert self.search(None, **changes) == flags
        assert self.search(flags[1], **changes) == flags[:2]
        divided = changes | {"parallel.model": 4}
        assert self.search(None, **divided) == flags[:3]

    def test_advice_by_arithmetic(self):
        step = made().step
        fixed = step.peak - step.activations - step.batch - step.next_batch
        config = toy.config(data__crop=8)
        small = dataclasses.replace(made(), available=fixed - 1)
        (line,) = making._advice(config, small, ())
        assert "alone do not fit" in line
        half = fixed + (step.peak - fixed) // 2
        small = dataclasses.replace(made(), available=half)
        (line,) = making._advice(config, small, ())
        assert line.startswith("fields of 49 % of their area") or "50 %" in line
        assert line.endswith("cut out a part with config.data.crop")

    def test_recomputation(self):
        config = toy.config(model__name="toy")
        assert remedies.recomputation(config) == {}
        named = remedies.changed(config, {"model.name": "earthformer"})
        assert remedies.recomputation(named) == {"model.remat": "blocks"}
        named = remedies.changed(config, {"model.name": "predrnn"})
        assert remedies.recomputation(named) == {"model.remat": "blocks"}
        named = remedies.changed(config, {"model.name": "persistence"})
        assert remedies.recomputation(named) == {}
        already = {"model.name": "unet", "model.remat": True}
        assert remedies.recomputation(remedies.changed(config, already)) == {}

    def test_batches_are_shared_by_all_devices(self):
        config = toy.config(train__batch_size=24, train__micro_batch=12)
        sizes = remedies.smaller_batches(config, 2, lambda size: size <= 6)
        assert [s["train.micro_batch"] for s in sizes] == [6, 4, 2]
        sizes = remedies.smaller_batches(config, 2, lambda size: False)
        assert [s["train.micro_batch"] for s in sizes] == [2]


class TestText:
    def test_every_number_is_there(self):
        text = "\n".join(command.lines(made()))
        assert text.startswith(f"{made().model} on toy: 3x4x4x1 to 3x4x4x1\n")
        for name in ("parameters (", "state of the optimiser", "expected peak"):
            assert name in text
        assert "it fits: " in text and "batch statistics" not in text

    def test_what_does_not_fit(self):
        small = dataclasses.replace(
            made(),
            available=1,
            tries=(making.Try("--config.train.micro_batch=4", 5 * MIB, False),),
            advice=("use a smaller model",),
        )
        text = "\n".join(command.lines(small))
        assert "it does not fit: " in text
        assert "  --config.train.micro_batch=4: 5.0 MiB, which does not fit" in text
        assert "  use a smaller model" in text

    def test_json_and_back(self):
        values = json.loads(json.dumps(made().to_json()))
        assert values["peak"] == made().step.peak and values["fits"]
        assert described.from_json(values) == made()


class TestCommand:
    def test_writes_json(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(making, "make", lambda *a, **k: made())
        output = tmp_path / "plan.json"
        command.plan(toy.config(), NOWHERE, None, str(output), parts)
        assert json.loads(output.read_text())["peak"] == made().step.peak
        assert "expected peak" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "devices, output, message",
        [
            (None, "plan.txt", "expected a .json file"),
            (None, "no/such/plan.json", "there is no folder no/such"),
            ("8xH100", None, "needs data and a model that a config names"),
        ],
    )
    def test_wrong_flags(self, devices, output, message):
        with pytest.raises(ConfigError, match=message):
            command.plan(toy.config(), NOWHERE, devices, output, parts)


def test_numbers_are_whole_bytes():
    whole = {f.name for f in dataclasses.fields(StepMemory) if f.type is int}
    step = dataclasses.asdict(made().step)
    assert all(isinstance(step[name], int) and step[name] >= 0 for name in whole)


@pytest.mark.slow
def test_described_devices_are_simulated():
    from earthformer_jax.run.api import load_config

    config = load_config("configs/climate.py:test,unet")
    auto = remedies.changed(config, {"model.remat": "auto"})
    plan = described.make(auto, NOWHERE, "2xH100")
    assert any("model.remat=auto is none here: none needs" in n for n in plan.notes)
    assert plan.step.devices == 2 and plan.machine == "2 x H100"
    assert plan.fits and plan.described
    wrong = remedies.changed(config, {"parallel.space": 3})
    with pytest.raises(ConfigError, match="space=3 times .* number of devices, 2"):
        described.make(wrong, NOWHERE, "2xH100")
