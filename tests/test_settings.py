"""Settings: filled from mappings, checked by field, and named in messages."""

import dataclasses

import pytest

from earthformer_jax import settings as lib
from earthformer_jax.settings import ConfigError, at_least, choice, setting


@dataclasses.dataclass(frozen=True)
class Base:
    """Settings of a test.

    Attributes:
        size: pixels along
            each side; 0: all.
        way: how.
    """

    size: int = setting(4, at_least(1))
    way: str = setting("up", choice("up", "down"))
    free: float = 0.5


@dataclasses.dataclass(frozen=True)
class Derived(Base):
    """The same with one more.

    Attributes:
        way: another meaning.
    """

    way: str = setting("down", choice("up", "down"))
    rest: tuple = ()

    def check(self):
        if self.rest:
            raise ConfigError(f"rest={self.rest} has no effect with size={self.size}")


def refused(settings, **values):
    with pytest.raises(ConfigError) as error:
        lib.settings_from(settings, values, "a test")
    return str(error.value)


class TestSettingsFrom:
    def test_what_is_left_out_has_its_default(self):
        assert lib.settings_from(Base, {"way": "down"}, "") == Base(way="down")

    def test_unknown_name(self):
        assert refused(Base, siz=3) == (
            "`siz` is not a setting of a test; did you mean `size`? "
            "(the settings are: size, way, free)"
        )

    @pytest.mark.parametrize("size", [2**31, 10**30])
    def test_beyond_int32(self, size):
        assert "a whole number of at least 1 and at most 2147483647" in refused(
            Base, size=size
        )

    def test_every_value_that_is_not_accepted_is_named(self):
        assert refused(Base, size=0, way="left") == (
            "size=0: expected a whole number of at least 1 (pixels along each side; 0: "
            "all)\nway='left': expected 'up' or 'down' (how)"
        )

    def test_contradictions_come_after(self):
        assert refused(Derived, size=0, rest=(1,)).startswith("size=0: expected")
        assert refused(Derived, rest=(1,)) == "rest=(1,) has no effect with size=4"


@pytest.mark.parametrize(
    ("accepted", "right", "wrong"),
    [
        (at_least(2), [2, 3], [1, 2.5, 2.0, True, "2"]),
        (lib.POSITIVE, [1, 1e-9], [0, -1, float("nan"), float("inf"), True, "1"]),
        (lib.NOT_NEGATIVE, [0, 2.5], [-0.1]),
        (lib.FRACTION, [0, 1, 0.5], [-0.1, 1.1]),
        (lib.DECAY, [0, 0.99], [1, -0.1]),
        (lib.FINITE, [-5, 0.1], [float("nan")]),
        (lib.TEXT, ["mse", ""], [3]),
        (choice("a", "b"), ["a"], ["c", "", 0]),
    ],
)
def test_accepted(accepted, right, wrong):
    assert all(accepted.test(value) for value in right)
    assert not any(accepted.test(value) for value in wrong)


def test_meanings_are_those_of_the_docstrings():
    assert lib.meanings(Base) == {
        "size": "pixels along each side; 0: all",
        "way": "how",
    }
    assert lib.meanings(Derived)["way"] == "another meaning"
    assert lib.meanings(Derived)["size"] == "pixels along each side; 0: all"
    assert lib.meanings(int) == {}


@pytest.mark.parametrize(
    ("message", "want"),
    [
        ("in_len=3 and out_len=4", "config.data.in_len=3 and config.data.out_len=4"),
        ("shorten `in_len` or `out_len`", "shorten config.data.in_len or `out_len`"),
        ("begin=3 or x.in_len=3 or /in_len=3", "begin=3 or x.in_len=3 or /in_len=3"),
        ("the in_len frames", "the in_len frames"),
        ("in_len_max=3", "in_len_max=3"),
    ],
)
def test_qualified(message, want):
    names = ["in", "in_len"] + (["out_len"] if "out_len=" in message else [])
    assert lib.qualified(message, "config.data.", names) == want


def test_flatten():
    tree = {"a": 1, "b": {"c": (1, 2), "d": {}}}
    assert lib.flatten(tree) == {"a": 1, "b.c": (1, 2), "b.d": {}}
