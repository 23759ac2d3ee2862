import numpy as np
import pytest
import xarray as xr

from earthformer_jax.statistics import withholding, xro
from earthformer_jax.statistics.linear_system import generator
from earthformer_jax.statistics.xro import Product
from tests import golden_files

NAMES = ("T", "h")
PRODUCTS = (Product("T", "T", "T"), Product("T", "T", "h"))


def coefficients(month):
    """An oscillator whose growth has a season: `[2, 2]` per year."""
    t = 2 * np.pi * month / 12
    growth = -0.8 + 0.9 * np.cos(t) - 0.4 * np.sin(2 * t)
    return np.array([[growth, 1.2 + 0.3 * np.sin(t)], [-1.5, -0.2]])


def made(months=240, first=4, products=False, noise=None):
    """Months that follow the equation of the fit exactly, up to `noise` `[m, 2]`."""
    x = np.empty((months, 2))
    x[0] = 1.0, 0.5
    for i in range(months - 1):
        month = first + i
        change = coefficients(month) @ x[i]
        if products:
            change[0] += 0.2 * x[i, 0] ** 2 - (0.1 * np.cos(np.pi * month / 6)) * (
                x[i, 0] * x[i, 1]
            )
        change += 0.0 if noise is None else noise[i]
        x[i + 1] = x[i] + change / 12
    return x


class TestFit:
    @pytest.mark.parametrize("products", (False, True))
    def test_the_coefficients_of_the_equation_are_found(self, products):
        x = made(products=products, noise=generator(0).normal(size=(240, 2)))
        clean = made(products=products)[:60]
        # Two series: their months must not be joined.
        model = xro.fit(
            [clean, clean[7:]], [4, 11], NAMES, products=PRODUCTS if products else ()
        )
        for month in range(12):
            season = xro.harmonics_of(np.array(month), 2)
            np.testing.assert_allclose(
                model.linear @ season, coefficients(month), atol=1e-6
            )
        if products:
            expected = [[0.2, 0, 0, 0, 0], [0, -0.1, 0, 0, 0]]
            np.testing.assert_allclose(model.nonlinear, expected, atol=1e-6)
        np.testing.assert_allclose(model.noise_std, 0, atol=1e-6)
        assert xro.fit(x, 4, NAMES).noise_std.min() > 0.3

    def test_the_noise_is_that_of_the_residuals(self):
        rng, months = generator(1), 24_000
        red, noise = rng.normal(size=2), np.empty((months, 2))
        memory = np.array([0.6, 0.3])
        season = 1 + 0.5 * np.cos(np.arange(months) * np.pi / 6)
        for i in range(months):
            red = memory * red + np.sqrt(1 - memory**2) * rng.normal(size=2)
            noise[i] = season[i] * red * [1.0, 2.0]
        model = xro.fit(made(months, 0, noise=noise), 0, NAMES)
        expected = season[:12, None] * [1.0, 2.0]
        np.testing.assert_allclose(model.noise_std, expected, rtol=0.08)
        # The seasons of the amplitude lower the correlations a little.
        np.testing.assert_allclose(model.noise_memory, memory, atol=0.06)

    def test_what_cannot_be_fitted_is_refused(self):
        x = made(60)
        with pytest.raises(ValueError, match=r"shape \(60, 2\) does not match 3 names"):
            xro.fit(x, 0, ("T", "h", "IOD"))
        with pytest.raises(ValueError, match="19 months are too few for 10 coeffic"):
            xro.fit(x[:20], 0, NAMES)
        with pytest.raises(ValueError, match="needs 'IOD', which is not among .* T, h"):
            xro.fit(x, 0, NAMES, products=[Product("IOD", "T", "T")])
        x[7, 1] = np.nan
        with pytest.raises(ValueError, match="not finite"):
            xro.fit(x, 0, NAMES)


class TestForecast:
    def test_a_month_is_the_mean_of_ten_steps_half_a_month_back(self):
        linear = np.zeros((1, 1, 3))
        linear[0, 0] = -1.0, 0.7, 0.4
        model = xro.XRO(
            ("T",), (), linear, np.zeros((0, 3)), np.zeros((12, 1)), np.zeros(1)
        )
        month = np.array([0, 5])
        found = model.forecast([[2.0], [-1.0]], month, 14)[..., 0]
        for i, state in enumerate((2.0, -1.0)):
            for lead in range(14):
                angle = 2 * np.pi * (month[i] + lead - 0.5) / 12
                rate = -1.0 + 0.7 * np.cos(angle) + 0.4 * np.sin(angle)
                steps = state * (1 + rate / 120) ** np.arange(1, 11)
                assert found[i, lead] == pytest.approx(np.mean(steps), rel=1e-12)
                state = steps[-1]

    def test_products_act_in_their_own_equation(self):
        growth = np.zeros((1, 5))
        growth[0, 0] = 0.5
        model = xro.XRO(
            NAMES,
            (Product("h", "T", "T"),),
            np.zeros((2, 2, 5)),
            growth,
            np.zeros((12, 2)),
            np.zeros(2),
        )
        found = model.forecast([[2.0, 1.0]], [0], 2)[0]
        np.testing.assert_allclose(found[:, 0], 2.0)
        # h grows by 0.5 T^2 a year; the mean of a month's ten steps.
        expected = 1 + 0.5 * 4 * (np.array([0, 1]) + 0.55) / 12
        np.testing.assert_allclose(found[:, 1], expected)

    def test_noise_has_its_amplitude_and_memory(self):
        noise_std = np.ones((12, 1)) * 12 * (1 + np.arange(12))[:, None]
        model = xro.XRO(
            ("T",), (), np.zeros((1, 1, 1)), np.zeros((0, 1)), noise_std, np.ones(1)
        )
        count = 4000
        found = model.forecast(
            np.zeros((count, 1)), np.full(count, 2), 2, generator(0)
        )[..., 0]
        # r stays as drawn: T is r s after a month, of which 0.55 is the mean.
        np.testing.assert_allclose(found[:, 0].std(), 0.55 * 3, rtol=0.05)
        np.testing.assert_allclose(found[:, 1], found[:, 0] / 0.55 * (1 + 0.55 * 4 / 3))

    def test_noise_keeps_its_variance(self):
        model = xro.XRO(
            ("T",),
            (),
            np.zeros((1, 1, 1)),
            np.zeros((0, 1)),
            np.full((12, 1), 12.0),
            np.array([0.6]),
        )
        found = model.forecast(np.zeros((9000, 1)), np.full(9000, 2), 2, generator(0))
        first = found[:, 0, 0] / 0.55
        second = (found[:, 1, 0] - first) / 0.55
        np.testing.assert_allclose(second.var(), 1, rtol=0.05)
        np.testing.assert_allclose(np.corrcoef(first, second)[0, 1], 0.6, atol=0.02)

    def test_growth_without_bound_and_wrong_shapes_are_refused(self):
        model = xro.fit(made(60), 4, NAMES)
        with pytest.raises(ValueError, match=r"expected \(b, 2\) and \(b,\)"):
            model.forecast([[1.0, 2.0]], [0, 1], 3)
        wild = xro.XRO(
            NAMES,
            PRODUCTS[:1],
            model.linear,
            np.full((1, 5), 1e6),
            model.noise_std,
            model.noise_memory,
        )
        with pytest.raises(ValueError, match="forecast of 12 months grows without"):
            wild.forecast([[1.0, 1.0]], [0], 12)


def centred(x):
    """Means of a month and those beside it, at the ends of the two there are."""
    known = np.pad(np.ones(len(x)), 1)
    padded = np.pad(x, [(1, 1)] + [(0, 0)] * (x.ndim - 1))
    sums = padded[:-2] + padded[1:-1] + padded[2:]
    count = known[:-2] + known[1:-1] + known[2:]
    return sums / count.reshape(-1, *[1] * (x.ndim - 1))


def test_published_skill_on_oras5():
    """Linear XRO, fitted to 1979-2022, in-sample, three-month means."""
    path = golden_files.shared_file("data", "sst", "xro_indices_oras5_1979_2024.nc")
    with xr.open_dataset(path) as file:
        x = np.stack([file[name].values for name in xro.INDICES], axis=-1)
    model = xro.fit(x[:528], 0)
    found = model.forecast(x[:528], np.arange(528), 21)[..., 0]
    truth = withholding.matching(centred(x[:, 0]), 21)[:528]
    for lead, expected in zip(
        (1, 2, 19, 20, 21), (0.9876, 0.9655, 0.4528, 0.4121, 0.3757), strict=True
    ):
        pair = np.stack([centred(found)[:, lead - 1], truth[:, lead - 1]])
        pair = pair[:, np.isfinite(pair[1])]
        assert np.corrcoef(*pair)[0, 1] == pytest.approx(expected, abs=5e-4), lead
