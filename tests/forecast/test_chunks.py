"""Forecasts in batches and stretches, next to a loop written by hand."""

import numpy as np
import pytest

from earthformer_jax.data.forecasting.beginnings import Beginnings, Variable
from earthformer_jax.data.readers import decoding
from earthformer_jax.forecast.chunks import Members, chunks

HEIGHT, WIDTH, IN_LEN, OUT_LEN = 2, 3, 3, 2
DAY = 1440


def model(inputs):
    """Two frames that depend on all inputs, and on the calendar channel."""
    fields, season = inputs[..., :1], inputs[..., 1:]
    first = 0.5 * fields[:, -1] + 0.1 * fields[:, 0] + season[:, -1]
    return np.stack([first, 0.9 * first], axis=1)


def season(minutes):
    return np.asarray(minutes) / (100 * DAY)


def advance(inputs, forecast, minutes):
    more = np.broadcast_to(season(minutes)[:, None, None, None], forecast.shape)
    return np.concatenate([inputs, np.concatenate([forecast, more], -1)])[-IN_LEN:]


def beginnings(count, **changes):
    rng = np.random.default_rng(1)
    last = np.arange(10, 10 + count)

    def following(window, steps):
        days = last[window] + np.arange(1, steps + 1)
        return decoding.of_seconds(86400.0 * days, "standard")

    windows = [
        {
            "inputs": rng.normal(size=(IN_LEN, HEIGHT, WIDTH, 2)).astype("f4"),
            "filled": np.float32(0.1 * i),
        }
        for i in range(count)
    ]
    given = {
        "label": "days.nc",
        "windows": windows,
        "last": last,
        "reference": None,
        "following": following,
        "variables": (Variable("t"),),
        "decode": lambda x, minutes: x,
        "advance": advance,
        "not_advanced": "the inputs have variables that are not forecast: u",
    }
    return Beginnings(**given | changes)


def joined(found, steps, batch_size):
    """All forecasts `[n, steps, h, w, c]` and the shares of filled values `[n]`."""
    made = np.full((len(found.windows), steps, HEIGHT, WIDTH, 1), np.nan)
    filled = np.full(len(found.windows), np.nan)
    for chunk in chunks(model, found, steps, batch_size, out_len=OUT_LEN):
        n, k = chunk.values.shape[:2]
        where = slice(chunk.first, chunk.first + n), slice(chunk.step, chunk.step + k)
        assert np.isnan(made[where]).all()  # each value comes once
        made[where], filled[where[0]] = chunk.values, chunk.filled
    assert np.isfinite(made).all()
    return made, filled


def by_hand(found, steps, model=model):
    made = []
    for i, window in enumerate(found.windows):
        inputs, frames = window["inputs"], []
        while len(frames) < steps:
            forecast = model(inputs[None])[0]
            minutes = DAY * (found.last[i] + len(frames) + np.array([1, 2]))
            inputs = advance(inputs, forecast, minutes)
            frames += list(forecast)
        made.append(frames[:steps])
    return np.array(made)


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_each_window_as_in_a_loop(steps, batch_size):
    found = beginnings(5)
    made, filled = joined(found, steps, batch_size)
    np.testing.assert_allclose(made, by_hand(found, steps), rtol=1e-6)
    np.testing.assert_allclose(filled, 0.1 * np.arange(5), rtol=1e-6)


def test_all_batches_have_one_size():
    sizes = []

    def noted(inputs):
        sizes.append(len(inputs))
        return model(inputs)

    list(chunks(noted, beginnings(5), 4, 3, out_len=OUT_LEN))
    assert sizes == [3, 3, 3, 3]


def test_one_batch_is_held_at_a_time():
    made = []

    class Counted:
        def __len__(self):
            return 6

        def __getitem__(self, index):
            made.append(index)
            return beginnings(6).windows[index]

    forecasts = chunks(model, beginnings(6, windows=Counted()), 6, 2, out_len=OUT_LEN)
    assert not made
    next(forecasts)
    assert made == [0, 1]


def test_what_cannot_be_fed_back_is_refused_before_anything_is_computed():
    found = beginnings(2, advance=None)
    with pytest.raises(ValueError, match=r"steps=3: .* not forecast: u; use at most 2"):
        chunks(model, found, 3, 1, out_len=OUT_LEN)
    assert joined(found, 2, 1)[0].shape == (2, 2, HEIGHT, WIDTH, 1)


def test_forecasts_without_dates_are_fed_back():
    seen = []

    def noted(inputs, forecast, minutes):
        seen.append(minutes)
        return inputs

    found = beginnings(1, following=None, advance=noted)
    joined(found, 4, 1)
    assert seen == [None]


def test_a_forecast_that_grows_without_bound_is_not_called_missing():
    def grows(inputs):
        with np.errstate(over="ignore"):
            return (1e30 * model(inputs)).astype("f4")

    made = chunks(grows, beginnings(3), 9, 2, out_len=OUT_LEN)
    with pytest.raises(ValueError, match=r"window 0 is not finite from step \d on; .*"):
        list(made)


def of_members(count, part):
    """Members that differ in a factor, and begin from each window as `model` does."""

    def factor(first, m):
        return 1 + 0.1 * np.arange(first, first + m).reshape(-1, 1, 1, 1, 1, 1)

    return Members(
        count,
        part,
        lambda inputs, m, first: factor(first, m) * model(inputs),
        lambda inputs, beginning, stretch, first: (
            factor(first, len(inputs)) * np.stack([model(own) for own in inputs])
        ),
    )


@pytest.mark.parametrize("part", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_members_continue_from_their_own_frames(part, batch_size):
    """Each is what a loop gives whose model has its factor, whatever the parts."""
    found, steps, count = beginnings(3), 5, 5
    made = np.full((3, count, steps, HEIGHT, WIDTH, 1), np.nan)
    members = of_members(count, part)
    for chunk in chunks(members, found, steps, batch_size, out_len=OUT_LEN):
        n, m, k = chunk.values.shape[:3]
        assert n <= batch_size and m <= part
        firsts = (chunk.first, n), (chunk.member, m), (chunk.step, k)
        where = tuple(slice(a, a + length) for a, length in firsts)
        assert np.isnan(made[where]).all()
        made[where] = chunk.values
    for i in range(count):
        want = by_hand(found, steps, lambda x, i=i: (1 + 0.1 * i) * model(x))
        np.testing.assert_allclose(made[:, i], want, rtol=1e-5, atol=1e-6)


def test_members_are_never_held_all_at_once():
    parts = []

    def begin(inputs, m, first):
        parts.append((first, m))
        return np.zeros((m, len(inputs), OUT_LEN, HEIGHT, WIDTH, 1))

    members = Members(10**6, 7, begin, of_members(1, 1).resume)
    made = chunks(members, beginnings(1), OUT_LEN, 1, out_len=OUT_LEN)
    assert [next(made).member for _ in range(3)] == [0, 7, 14]
    assert parts == [(0, 7), (7, 7), (14, 7)]
