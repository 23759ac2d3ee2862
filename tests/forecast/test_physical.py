"""A model in physical units is the same as the way through files and NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.data.climatology import Climatology
from earthformer_jax.data.cubes.statistics import Normalizer
from earthformer_jax.data.enso.examples import with_calendar
from earthformer_jax.data.forecasting.encoding import Encoding
from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.frames import ArrayFrames
from earthformer_jax.data.windows import Windows
from earthformer_jax.forecast.physical import decode, encode, physical

B, T, K, H, W, C, TARGETS = 3, 4, 2, 3, 5, 2, 1
DAY = 1440
COUNTED = np.ones((H, W, C), bool)
COUNTED[0, 0] = COUNTED[1, 2, 1] = False


def climatology(kind):
    """Like temperatures in K with cycles of 20 K."""
    annual, daily = {"mean": (0, 0), "year": (3, 0), "year and day": (3, 2)}.get(
        kind, (0, 0)
    )
    count = 12 if kind == "month" else (1 + 2 * annual) * (1 + 2 * daily)
    rng = np.random.default_rng(0)
    coefficients = 20 * rng.standard_normal((count, H, W, C)).astype(np.float32)
    if kind == "month":
        coefficients += 280
        coefficients[:, 2, 2] = np.nan
        return Climatology(coefficients, monthly=True)
    coefficients[0] += 280
    return Climatology(coefficients, annual, daily)


def series(step, frames=B + T + K):
    """Fields with gaps, some of them inf; their times cross a leap day."""
    if step == "month":
        minutes = times.of_months(1197 + np.arange(frames)).minutes + 14 * DAY
    else:
        minutes = np.datetime64("2096-02-27", "m").astype(int) + step * np.arange(
            frames
        )
    rng = np.random.default_rng(1)
    values = 280 + 20 * rng.standard_normal((frames, H, W, C)).astype(np.float32)
    values[rng.uniform(size=values.shape) < 0.3] = np.nan
    values[4, 1, 1] = np.inf
    return values, minutes


def continued(inputs, targets=TARGETS):
    """What stands for a model: the last frames, and their sums with the calendar."""
    last = inputs[:, -K:, ..., :targets]
    return last + inputs[:, -K:, ..., -1:]


@pytest.mark.parametrize(
    ("kind", "calendar", "step"),
    [
        ("", "", DAY),
        ("", "season and day", 180),
        ("mean", "season", DAY),
        ("year", "season", DAY),
        ("year and day", "season and day", 180),
        ("year", "season", "month"),
        ("month", "", "month"),
    ],
)
def test_it_equals_the_windows(kind, calendar, step):
    """Inputs and forecasts of every window of a series, in float32 accuracy."""
    values, minutes = series(step)
    scale, offset = np.array([2, 3], np.float32), np.array([280, 281], np.float32)
    cycle = climatology(kind) if kind else None
    if cycle is not None:
        offset = np.zeros(2, np.float32)
    normalizer = Normalizer(scale, offset, COUNTED, cycle)
    starts = np.arange(B)
    windows = Windows(
        ArrayFrames(values), minutes, starts, in_len=T, out_len=K,
        normalizer=normalizer, targets=TARGETS, calendar=bool(calendar),
        time_of_day="day" in calendar,
    )  # fmt: skip
    examples = [windows[i] for i in range(B)]
    encoding = Encoding(
        scale=scale, offset=offset, targets=TARGETS, counted=COUNTED,
        climatology=cycle, calendar=calendar,
    )  # fmt: skip
    given = np.stack([values[i : i + T] for i in starts])
    moments = np.stack([minutes[i : i + T + K] for i in starts])
    seen = jnp.asarray(moments[:, :T], jnp.int32)
    want = np.stack([example["inputs"] for example in examples])
    got = encode(encoding, jnp.asarray(given), seen)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())

    want = [
        normalizer.decode(continued(example["inputs"][None])[0], moments[i, T:])
        for i, example in enumerate(examples)
    ]
    function = physical(lambda _, inputs: continued(inputs), encoding)
    for given_times in (moments, moments[:, :T]):
        got = function({}, given, given_times)
        accuracy = 1e-6 * np.nanmax(np.abs(want))
        np.testing.assert_allclose(got, np.stack(want), atol=accuracy)
    assert np.isnan(got[:, :, 0, 0]).all()


def test_months_as_the_model_of_el_nino_sees_them():
    values, minutes = series("month")
    given = np.nan_to_num(values[:T], nan=0, posinf=0)
    first = int(times.month_of(minutes[T]) % 12)
    ones = np.ones(C, np.float32)
    encoding = Encoding(scale=ones, offset=0 * ones, targets=1, calendar="month")
    seen = jnp.asarray(minutes[None, :T], jnp.int32)
    got = encode(encoding, jnp.asarray(given[None]), seen)[0]
    np.testing.assert_allclose(got, with_calendar(given, first), atol=1e-6)


def test_a_value_is_carried_so_far_and_no_farther():
    values = np.full((1, 6, 1, 1, 1), np.nan, np.float32)
    values[0, 1] = 5
    one = np.ones(1, np.float32)

    def filled(most, **more):
        encoding = Encoding(
            scale=one, offset=0 * one, targets=1, most_carried=most, **more
        )
        return np.ravel(encode(encoding, jnp.asarray(values))).tolist()

    assert filled(None) == [0, 5, 5, 5, 5, 5]
    assert filled(2) == [0, 5, 5, 5, 0, 0]
    assert filled(0) == [0, 5, 0, 0, 0, 0]
    assert filled(1, fill=-2 * one) == [-2, 5, 5, -2, -2, -2]


@pytest.fixture
def daily():
    encoding = Encoding(
        scale=np.array([2, 3], np.float32), offset=np.zeros(2, np.float32),
        targets=1, counted=COUNTED, climatology=climatology("year"), calendar="season",
    )  # fmt: skip
    values, minutes = series(DAY)
    function = physical(lambda w, x: w["a"] * continued(x), encoding)
    return functools.partial(function, {"a": 2.0}), values[None, :T], minutes[None, :T]


def test_it_is_compiled_mapped_and_differentiated(daily):
    function, inputs, minutes = daily
    want = function(inputs, minutes)
    minutes = jnp.asarray(minutes, jnp.int32)
    np.testing.assert_allclose(jax.jit(function)(inputs, minutes), want, rtol=1e-6)
    mapped = jax.vmap(function)(inputs[None], minutes[None])[0]
    np.testing.assert_allclose(mapped, want, rtol=1e-6)

    def total(inputs):
        return jnp.nansum(function(inputs, minutes))

    gradient = np.asarray(jax.grad(total)(jnp.asarray(inputs)))
    assert np.isfinite(gradient).all()
    assert (gradient[..., 1] == 0).all()  # the second variable is not forecast
    known = np.isfinite(inputs[0, -1, ..., 0]) & COUNTED[..., 0]
    np.testing.assert_allclose(gradient[0, -1, ..., 0][known], 2, rtol=1e-6)


def test_what_is_masked_is_missing(daily):
    function, inputs, minutes = daily
    masked = np.ma.masked_invalid(inputs)
    masked.data[masked.mask] = 1e20
    np.testing.assert_array_equal(function(masked, minutes), function(inputs, minutes))


def test_the_inverse_restores_the_fields(daily):
    _, values, minutes = daily
    encoding = Encoding(
        scale=np.array([2, 3], np.float32), offset=np.zeros(2, np.float32),
        targets=2, counted=COUNTED, climatology=climatology("month"),
    )  # fmt: skip
    minutes = jnp.asarray(minutes, jnp.int32)
    known = np.isfinite(values) & COUNTED
    known[..., 2, 2, :] = False  # the climatology is unknown there
    back = decode(encoding, encode(encoding, jnp.asarray(values), minutes), minutes)
    np.testing.assert_allclose(np.asarray(back)[known], values[known], rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (T, H, W, C),
            r"inputs have the shape \(4, 3, 5, 2\); expected \(batch, time, ",
        ),
        ((1, T, H, W, 3), r"expected \(batch, time, 3, 5, 2\)"),
        ((1, T, W, H, C), r"inputs have the shape \(1, 4, 5, 3, 2\)"),
    ],
)
def test_shapes_that_are_refused(daily, shape, message):
    with pytest.raises(ValueError, match=message):
        daily[0](np.zeros(shape, np.float32), daily[2])


@pytest.mark.parametrize(
    ("minutes", "message"),
    [
        (None, "minutes are needed"),
        (np.zeros((1, T)), "minutes have the type float64; expected whole minutes"),
        (np.zeros((1, T), "datetime64[m]"), "give times.astype"),
        (np.zeros(T, int), r"minutes have the shape \(4,\) for 1 × 4 input frames"),
        (np.zeros((2, T), int), "minutes have the shape"),
        (np.zeros((1, T - 1), int), "minutes have the shape"),
        (np.zeros((1, T + 1), int), r"have 5 times; expected 4, of the inputs, or 6"),
        (np.full((1, T), 2**31), "minutes reach from 2147483648"),
    ],
)
def test_times_that_are_refused(daily, minutes, message):
    with pytest.raises(ValueError, match=message):
        daily[0](daily[1], minutes)


def test_one_frame_does_not_say_when_the_next_one_is(daily):
    function, inputs, minutes = daily
    message = "single time.* give those of inputs and forecast, 2 times"
    with pytest.raises(ValueError, match=message):
        function(inputs[:, :1], minutes[:, :1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"calendar": "moon"}, "calendar='moon'"),
        ({"offset": np.zeros(3)}, "with 3 offsets"),
        ({"targets": 3}, "and 3 targets"),
        ({"counted": np.ones((H, W, 1), bool)}, "fields of the shapes"),
        ({"counted": np.ones((W, H, C), bool)}, "fields of the shapes"),
    ],
)
def test_arrays_that_do_not_fit_together(changes, message):
    given = dict(scale=np.ones(C), offset=np.zeros(C), targets=1)
    with pytest.raises(ValueError, match=message):
        Encoding(**given | {"climatology": climatology("mean")} | changes)
