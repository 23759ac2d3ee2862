"""Data that follow a protocol, and data that do not fit."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from earthformer_jax import data
from earthformer_jax.data.protocols import following, registry
from earthformer_jax.data.protocols.scores import EventScores
from earthformer_jax.data.sevir.settings import Settings
from earthformer_jax.settings import ConfigError, settings_from
from tests.data import sevir_layout

NAME = "sevir-paper"
FOUND = {"train": 6, "validation": 9, "test": 12}  # windows of the files of these tests


def load(state=None, **config) -> Any:
    return data.load({"name": "sevir"} | config, state=state)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(sevir_layout.write(tmp_path_factory.mktemp("sevir")))


@pytest.fixture
def small(monkeypatch):
    """The protocols of SEVIR, of the files of these tests."""

    def change(**changes):
        for name in ("sevir-paper", "sevir-challenge"):
            made = dataclasses.replace(registry.PROTOCOLS[name], **changes)
            monkeypatch.setitem(registry.PROTOCOLS, name, made)

    change(size=(12, 12), examples=FOUND)
    return change


class TestSevir:
    def test_the_task_is_scored_by_it(self, folder, small):
        plain = load(path=folder)
        dataset = load(path=folder, protocol="sevir-challenge")
        assert plain.task.protocol == {}
        challenge = registry.PROTOCOLS["sevir-challenge"]
        assert dataset.task.protocol == challenge.description
        metric = dataset.task.metric
        assert isinstance(metric, EventScores) and metric.thresholds == (16, 74, 133)
        assert metric.scale == 255
        assert len(dataset.data.test) == FOUND["test"]

    def test_any_scaling_in_the_challenge(self, folder, small):
        config = dict(path=folder, normalization="sevir")
        metric = load(protocol="sevir-challenge", **config).task.metric
        assert (metric.scale, metric.offset) == (47.54, 33.44)
        with pytest.raises(ConfigError, match="normalization=sevir contradicts"):
            load(protocol=NAME, **config)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                dict(in_len=12),
                "in_len=12 contradicts protocol=sevir-paper, in which it",
            ),
            (dict(crop=(8, 8)), r"crop=\(8, 8\) .* leave `crop` empty, or use no prot"),
            (dict(skip_missing_files=True), "skip_missing_files=True contradicts"),
            (dict(train_until="2018-12-01"), "train_until=2018-12-01 contradicts"),
            (dict(space_step=2), "space_step=2 contradicts"),
            (dict(path=""), "is for files, and none are given; set `path`"),
            (dict(protocol="sevir-papr"), "no such protocol; did you mean `sevir-pap"),
            (
                dict(protocol="nbody-paper"),
                "is for 'nbody_mnist' data; for 'sevir' dat",
            ),
            (dict(protocol="enso-oras5-xro"), "is for 'indices' data"),
            (dict(protocol=3), "protocol=3: expected a text"),
        ],
    )
    def test_refused(self, folder, small, changes, message):
        with pytest.raises(ConfigError, match=message):
            load(**(dict(path=folder, protocol=NAME) | changes))

    def test_a_protocol_changes_what_is_at_its_default(self, folder):
        values = dict(path=folder, protocol="sevir-lr")
        made = settings_from(Settings, values, "the SEVIR data")
        assert (made.in_len, made.out_len, made.stride) == (7, 6, 6)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                dict(size=(384, 384)),
                "frames of 384 x 384 pixels; here they have 12 x 12",
            ),
            (dict(frame="10 min"), "frames every 10 min; here it is every 5 min"),
            (
                dict(examples={"test": 12_159}),
                "12,159 test examples; here there are 6 train, 9 validation, 12 test",
            ),
            (dict(examples={"train": 5}), "5 train examples; here there are 6 train"),
        ],
    )
    def test_other_data(self, folder, small, changes, message):
        small(**changes)
        with pytest.raises(ValueError, match=message):
            load(path=folder, protocol=NAME)

    def test_a_few_windows_may_be_left_out(self, folder, small, monkeypatch):
        small(examples={"test": 13})
        with pytest.raises(ValueError, match="13 test examples; here there are"):
            load(path=folder, protocol=NAME)
        monkeypatch.setattr(following, "LEAST_SHARE", 12 / 13)
        assert load(path=folder, protocol=NAME).task.protocol

    def test_a_trained_model_on_other_data_is_scored_without(
        self, folder, small, caplog
    ):
        state = load(path=folder, protocol=NAME).data.state()
        small(examples={"test": 100})
        dataset = load(state, path=folder, protocol=NAME)
        assert dataset.task.protocol == {}
        assert not isinstance(dataset.task.metric, EventScores)
        assert "it is scored without a protocol" in caplog.text


class TestDigits:
    @pytest.fixture
    def file(self, tmp_path):
        rng = np.random.default_rng(0)
        path = tmp_path / "mnist_test_seq.npy"
        np.save(path, rng.integers(0, 255, (20, 30, 64, 64), np.uint8))
        return str(path)

    def test_followed(self, file, monkeypatch):
        protocol = registry.PROTOCOLS["moving-mnist-paper"]
        config = {"name": "moving_mnist", "path": file, "protocol": protocol.name}
        with pytest.raises(
            ValueError, match="here there are 24 train, 3 validation, 3"
        ):
            data.load(config)
        counts = {"train": 24, "validation": 3, "test": 3}
        monkeypatch.setitem(
            registry.PROTOCOLS,
            protocol.name,
            made := dataclasses.replace(protocol, examples=counts),
        )
        dataset = data.load(config)
        assert dataset.task.protocol == made.description
        # Forecasts begin from whole sequences, which are longer than the protocol's.
        kept: Any = dataset.data.state
        begin: Any = data.beginnings(config, kept()).windows
        assert begin.first == [10] and begin.length == 10

    def test_generated_sequences_are_others(self):
        for name, protocol in (
            ("moving_mnist", "moving-mnist-paper"),
            ("nbody_mnist", "nbody-paper"),
        ):
            with pytest.raises(ConfigError, match="is for files, and none are given"):
                data.load({"name": name, "protocol": protocol})
        config = {"name": "nbody_mnist", "protocol": "nbody-paper", "G": 0.1}
        with pytest.raises(ConfigError, match="G=0.1 contradicts .* which it is 0.05"):
            data.load(config)


def test_departures_of_settings():
    protocol = registry.PROTOCOLS["enso-icar-paper"]
    values = dict(in_len=12, out_len=14, normalization="auto", split="released")
    assert following.departures(protocol, values) == {"split": "paper"}
    values |= dict(split="paper", normalization="anomaly", in_len=24)
    found = following.departures(protocol, values)
    assert found == {"in_len": 12, "normalization": "official"}


def test_data_without_protocols():
    with pytest.raises(ConfigError, match="for 'custom' data there are none"):
        following.named("sevir-paper", "custom")
    with pytest.raises(ConfigError, match="`protocol` is not a setting of"):
        data.load({"name": "custom", "protocol": "sevir-paper"})
