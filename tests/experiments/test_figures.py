"""Figures 2 to 5 of the paper: what they are drawn from, and what is refused."""

import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def figures(experiment):
    return experiment("figures")


def test_cuboids(figures):
    """Local cuboids are blocks, dilated ones take every second position."""
    t, h, w = np.indices(figures.GRID)
    local, dilated, shifted = (
        figures.cuboids(figures.GRID, spec) for spec in figures.CUTS.values()
    )
    np.testing.assert_array_equal(local, 4 * (t // 3) + 2 * (h // 2) + w // 2)
    np.testing.assert_array_equal(dilated, 4 * (t % 2) + 2 * (h % 2) + w % 2)
    np.testing.assert_array_equal(shifted, np.roll(local, (1, 1, 1), (0, 1, 2)))


def test_who_reads_whom(figures):
    reads = figures.attends((2, 4, 4), figures.CuboidSpec((2, 2, 2)), vectors=2)
    assert reads.shape == (34, 34)
    np.testing.assert_array_equal(reads[:32].sum(axis=1), 8 + 2)  # eq. 7
    np.testing.assert_array_equal(reads[32:].sum(axis=1), 34)  # eq. 8


def test_files(figures, tmp_path, capsys):
    assert figures.main([f"--out={tmp_path}", f"--tables={tmp_path}"]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"figure2.png", "figure3.png", "figure4.png"}
    assert "figure 5 needs trained models below" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--only=11", "--only=11: expected some of 2, 3, 4, 5 (figure 11 is chaos.py"),
        ("--only=5", "run table5.py --data=nbody_mnist --scale=quick first"),
    ],
)
def test_wrong_arguments(figures, tmp_path, capsys, wrong, message):
    with pytest.raises(SystemExit):
        figures.main([f"--out={tmp_path}", f"--tables={tmp_path}", wrong])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
