"""Tables of the zoo, of results that are given."""

import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def zoo(experiment):
    return experiment("zoo")


def test_every_config_has_what_its_runs_need(zoo):
    assert set(zoo.SCORES) == set(zoo.FEW_EXAMPLES)
    assert {"nbody_mnist", "moving_mnist", "sevir", "enso"} == set(zoo.SCORES)
    for config in zoo.SCORES:
        assert (ROOT / "configs" / f"{config}.py").exists()
    assert {config for config, _ in zoo.SHORTENED} <= set(zoo.SCORES)


@pytest.mark.parametrize("config", ["moving_mnist", "sevir"])
def test_table(zoo, config):
    scores = {key: 0.25 for key, _, _ in zoo.SCORES[config]}
    result = dict(
        forecasts={"model": scores, "persistence": scores},
        parameters=1234,
        seconds_per_step=0.5,
        peak_mib=2048,
    )
    lines = zoo.table(config, {"unet": result}).splitlines()
    assert lines[0].startswith("| model | ") and lines[-1].startswith("| *persistence*")
    assert lines[2].endswith("| 1,234 | 0.50 | 2,048 |")
    assert len({line.count("|") for line in lines}) == 1


def test_wrong_arguments(zoo, capsys):
    with pytest.raises(SystemExit):
        zoo.main(["--configs=mnist"])
    assert "--configs=mnist: expected some of nbody_mnist" in capsys.readouterr().err
