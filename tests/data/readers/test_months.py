import pytest

from earthformer_jax.data.readers import months


def test_parse_and_format_are_inverse():
    for text in ("1856-01", "1979-12", "0001-06"):
        assert months.format_month(months.parse_month(text, "x")) == text
    assert months.parse_month("2000-01", "x") % 12 == 0


@pytest.mark.parametrize("text", ["1979", "1979-13", "1979-00", "79-12", "1979-12-01"])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match=f"x='{text}' is not a month; write YYYY-MM"):
        months.parse_month(text, "x")


def test_long_lists_are_cut():
    assert months.format_months([0, 1]) == "0000-01, 0000-02"
    assert months.format_months(range(12), at_most=2) == "0000-01, 0000-02 and 10 more"
