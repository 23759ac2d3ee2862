"""Every change of a described file is noticed."""

import pytest

from earthformer_jax.training.disk import checksums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "arrays").write_bytes(bytes(range(256)))
    (tmp_path / "progress").write_text("{}")
    (tmp_path / "empty").write_text("")
    checksums.write(tmp_path)
    return tmp_path


def flip(path):
    content = bytearray(path.read_bytes())
    content[100] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, "state/arrays differs from its checksum"),
        (lambda path: path.write_bytes(b""), "state/arrays has 0 bytes, expected 256"),
        (lambda path: path.unlink(), "state/arrays is missing"),
        (lambda path: (path.unlink(), path.mkdir()), "state/arrays is missing"),
    ],
)
def test_damage_is_named(folder, damage, message):
    checksums.verify(folder)
    damage(folder / "state" / "arrays")
    with pytest.raises(ValueError, match=message):
        checksums.verify(folder)
    checksums.verify(folder, only=["progress"])


def test_files_added_later_are_not_looked_at(folder):
    (folder / ".DS_Store").write_text("")
    checksums.verify(folder)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]"])
def test_a_damaged_description(folder, text):
    (folder / checksums.FILE).write_text(text)
    with pytest.raises(ValueError):
        checksums.verify(folder, only=["progress"])
