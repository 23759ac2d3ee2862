"""The search over patterns: what is drawn, what it costs, and how it is chosen."""

import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def search(experiment, monkeypatch):
    monkeypatch.chdir(ROOT)
    return experiment("search")


def test_layers_on_a_grid(search):
    cut = search.Layer((0, 4, 1), shifted=True).cut((10, 16, 16))
    assert (cut.size, cut.shift, cut.strategy) == ((10, 4, 1), (5, 2, 0), "lll")
    assert search.Layer((2, 0, 0), dilated=True).cut((10, 8, 6)).size == (2, 8, 6)
    assert str(search.Layer((0, 4, 1), shifted=True)) == "allx4x1s"


def test_drawn_patterns_mix_along_every_axis(search):
    rng = np.random.default_rng(1)
    found = [search.drawn(rng) for _ in range(50)]
    assert len(set(found)) > 40
    for layers in found:
        assert 1 <= len(layers) <= 3
        assert all(any(x.size[axis] != 1 for x in layers) for axis in range(3))
        assert not any(x.dilated and x.shifted for x in layers)
        assert all(x.size != (1, 1, 1) for x in layers)
    assert found == [search.drawn(r) for r in [np.random.default_rng(1)] for _ in found]


def test_a_candidate_is_its_model(search):
    layers = (search.Layer((0, 1, 1)), search.Layer((1, 4, 4), shifted=True))
    candidate = search.Candidate(layers, vectors=2)
    options = dict(candidate.options) | dict(search.SMALL) | search.depths(1)
    options |= dict(base="", noise=0)  # of every model, as a config has them
    shape = (4, 16, 16, 1)
    model = candidate.model(options, shape, shape)
    assert model.num_global_vectors == 2
    assert model.enc_pattern[1] == tuple(x.cut((4, 4, 4)) for x in layers)
    assert model.dec_self_pattern == "axial"
    flat = search.Candidate("axial", 0, hierarchy=False)
    assert flat.name == "axial-g0-flat" and flat.options["downsample"] == (1, 1, 1)


def test_what_is_trained_at_the_paper_s_size_is_what_is_counted(search):
    """Without hierarchy, channels still double from the first level to the second."""
    row = search.Candidate("axial", 0, hierarchy=False).row()
    config = search.config_of(row, "moving_mnist", "paper")
    assert tuple(config.model.block_units) == (64, 128)
    config = search.config_of(row, "moving_mnist", "quick")
    assert tuple(config.model.block_units) == search.SMALL["block_units"]


@pytest.fixture
def trained(search, monkeypatch):
    """Costs and results without models."""
    names = []

    def result(candidate, a, changes):
        names.append(candidate.name)
        score = {"axial-g0": 9.0, "axial-g8": 8.0}.get(candidate.name, 10.0)
        a.out.mkdir(parents=True, exist_ok=True)
        return dict(
            validation=score,
            test_examples=100,
            forecasts={"model": {"mse": score + 1}, "persistence": {"mse": 20.0}},
        )

    def costs(candidate):
        over = candidate.pattern == "divided_st"
        return search.Costs(1_000_000, 40_000_000_000 if over else 30_000_000_000)

    monkeypatch.setattr(search, "result_of", result)
    monkeypatch.setattr(search, "paper_cost", costs)
    return names


def test_the_best_on_validation_wins(search, trained, tmp_path, capsys):
    arguments = ["--patterns=axial,divided_st", "--number=2", "--vectors=0,8"]
    assert search.main([*arguments, f"--out={tmp_path}"]) == 0
    assert len(trained) == 6 and not any("divided" in name for name in trained)
    text = (tmp_path / "search-nbody_mnist-quick.md").read_text()
    assert text in capsys.readouterr().out
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert rows[0] == "| axial-g8 | 1.00 | 30.0 | 8.00 |"
    assert rows[-1] == "| divided_st-g8 | 1.00 | 40.0 | over budget |"
    assert "Test MSE: axial-g8 9.00, axial-g0 10.00, persistence 20.00" in text


def test_costs_train_nothing(search, trained, tmp_path, capsys):
    search.main(["--costs", "--number=0", f"--out={tmp_path}"])
    assert not trained and "| axial-g0 | 1.00 | 30.0 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--patterns=axle"], "--patterns=axle: expected some of axial, divided_st"),
        (["--patterns=", "--number=0"], "--number=0: expected at least 1"),
        (["--number=-1"], "--number=-1: expected at least 0"),
        (["--vectors=x"], "--vectors=x: expected numbers, such as 0,8"),
        (["--hierarchy=maybe"], "--hierarchy=maybe: expected yes, no, or yes,no"),
        (["--budget=3"], "--budget=3: the cheapest candidate needs 30.0"),
    ],
)
def test_wrong_arguments(search, trained, capsys, wrong, message):
    with pytest.raises(SystemExit):
        search.main(wrong)
    assert message in capsys.readouterr().err and not trained
