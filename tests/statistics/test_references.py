import numpy as np
import pytest
import xarray as xr

from earthformer_jax.statistics import references
from earthformer_jax.statistics.eof import fit_eofs
from earthformer_jax.statistics.linear_system import LinearSystem, generator
from tests import golden_files

OCEAN = np.array([[1, 1, 1], [1, 0, 1]], bool)
LATITUDE = np.array([0.0, 10.0])


def fit_lim(series, out_len=3):
    return references.fit_lim(series, OCEAN, 0, out_len, latitude=LATITUDE)


def inputs(seed=0, count=2):
    x = generator(seed).normal(size=(count, 4, 2, 3, 1)) * OCEAN[..., None]
    return x.astype(np.float32)


def red_noise(months, lag_one, seed=0):
    rng = generator(seed)
    x = [rng.normal(size=OCEAN.shape)]
    for _ in range(months - 1):
        x.append(lag_one * x[-1] + rng.normal(size=OCEAN.shape))
    return np.array(x) * OCEAN


class TestDamping:
    def test_damping_is_the_autocorrelation_of_red_noise(self):
        lag_one = np.array([[0.9, 0.5, 0.0], [0.7, 0.0, -0.4]])
        factors = references.damping_factors([red_noise(40000, lag_one)], OCEAN, 3)
        for lead in range(3):
            np.testing.assert_allclose(factors[lead], lag_one ** (lead + 1), atol=0.02)

    def test_damping_by_hand(self):
        x = np.array([1.0, 2.0, -1.0, 3.0])[:, None, None] * OCEAN
        factors = references.damping_factors([x], OCEAN, 2)
        np.testing.assert_allclose(factors[0][OCEAN], (2 - 2 - 3) / (1 + 4 + 1))
        np.testing.assert_allclose(factors[1][OCEAN], ((-1 + 6) / 2) / ((1 + 4) / 2))
        assert not factors[:, ~OCEAN].any()

    def test_a_cell_without_variance_is_damped_to_zero(self):
        x = red_noise(300, 0.5)
        x[:, 0, 0] = 0
        assert references.damping_factors([x], OCEAN, 1)[0, 0, 0] == 0


class TestLim:
    def test_is_exact_for_a_linear_oscillation(self):
        turn, shrink = 2 * np.pi / 40, 0.995
        a = shrink * np.array(
            [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        )
        z = [np.array([1.0, 0.0])]
        for _ in range(300):
            z.append(a @ z[-1])
        patterns = generator(1).normal(size=(2, 2, 3)) * OCEAN
        x = np.einsum("tk,khw->thw", np.array(z), patterns)
        forecast = fit_lim(x[:250])(x[None, 250:254, :, :, None], np.array([2]))
        np.testing.assert_allclose(forecast[0, ..., 0], x[254:257], atol=1e-5)

    def test_a_system_with_memory_reads_the_newest_month_first(self):
        x = red_noise(400, 0.6)
        basis = fit_eofs([x], OCEAN, LATITUDE, 2)
        system = LinearSystem.fit(basis.amplitudes(x), 0, lags=2, harmonics=0)
        window = inputs(count=1)
        found = references.system_forecast(
            window, np.array([0]), system=system, basis=basis, out_len=1
        )
        z = basis.amplitudes(window[0, ..., 0])
        a = system.transition[11][:2]
        expected = basis.fields(a[:, :2] @ z[-1] + a[:, 2:] @ z[-2])
        np.testing.assert_allclose(found[0, 0, ..., 0], expected, atol=1e-6)

    def test_errors(self):
        with pytest.raises(ValueError, match="3 months cannot be verified at 3"):
            references.damping_factors([red_noise(3, 0.5)], OCEAN, 3)
        with pytest.raises(ValueError, match=r"\(months, h, w\)"):
            fit_lim(red_noise(50, 0.5)[0])
        x = red_noise(60, 0.5)
        basis = fit_eofs([x], OCEAN, LATITUDE, 2)
        system = LinearSystem.fit(basis.amplitudes(x), 0, lags=3)
        with pytest.raises(ValueError, match="2 months are fewer than the 3 lags"):
            references.system_forecast(
                inputs()[:, :2], np.zeros(2, int), system=system, basis=basis, out_len=1
            )


# Correlation with the monthly Nino3.4 index of 1985-2014 at leads 1-12, fitted on
# Kaplan anomalies before 1970: the figures of an independent implementation.
KAPLAN = {
    "lim": (0.96, 0.89, 0.81, 0.71, 0.61, 0.51, 0.41, 0.31, 0.21, 0.11, 0.01, -0.07),
    "persistence": (0.95, 0.87, 0.76, 0.64, 0.53, 0.41)
    + (0.30, 0.19, 0.11, 0.04, -0.01, -0.04),
}


class TestKaplan:
    """The observed Pacific, 1856-2014, on 5-degree cells."""

    @pytest.fixture
    def kaplan(self):
        path = golden_files.shared_file(
            "data", "sst", "kaplan_pacific_ssta_1856_2014.nc"
        )
        with xr.open_dataset(path) as file:
            x = file["ssta"].values.astype(np.float64)
            latitude, longitude = file["lat"].values, file["lon"].values
            year = file["time"].dt.year.values
        return x, latitude, longitude, year

    def skill(self, kaplan, last_year, make):
        """Correlation at leads 1-12 over all target months from 1985 on."""
        x, latitude, longitude, year = kaplan
        ocean = np.isfinite(x).all(axis=0)
        month, training = np.arange(len(x)) % 12, year < last_year
        climatology = [x[training & (month == m)].mean(axis=0) for m in range(12)]
        x = np.where(ocean, x - np.array(climatology)[month], 0.0)
        rows = np.cos(np.deg2rad(latitude)) * (np.abs(latitude) < 5)
        inside = (longitude > 190) & (longitude < 240)
        weights = rows[:, None] * inside * ocean
        index = np.einsum("thw,hw->t", x, weights / weights.sum())
        forecast = make(x[training], ocean, latitude)
        first = np.arange(np.argmax(year == 1985) - 11, len(x) - 11)
        inputs = np.stack([x[t - 12 : t] for t in first])[..., None]
        found = forecast(inputs, month[first])[..., 0]
        found = np.einsum("bkhw,hw->bk", found, weights / weights.sum())
        skill = []
        for lead in range(12):
            target = first + lead
            chosen = year[target] >= 1985
            pair = found[chosen, lead], index[target[chosen]]
            skill.append(np.corrcoef(*pair)[0, 1])
        return np.array(skill)

    @pytest.mark.parametrize("name", sorted(KAPLAN))
    def test_independent_figures_are_reached(self, kaplan, name):
        def make(series, ocean, latitude):
            if name == "persistence":
                return lambda x, month: np.repeat(x[:, -1:], 12, axis=1)
            return references.fit_lim(series, ocean, 0, 12, latitude=latitude)

        skill = self.skill(kaplan, 1970, make)
        np.testing.assert_allclose(skill, KAPLAN[name], atol=0.01)

    def test_seasons_and_memory_beat_the_plain_lim(self, kaplan):
        def make(series, ocean, latitude):
            basis = fit_eofs([series], ocean, latitude, 12)
            system = LinearSystem.fit(basis.amplitudes(series), 0)
            return lambda x, month: references.system_forecast(
                x, month, system=system, basis=basis, out_len=12
            )

        skill = self.skill(kaplan, 1980, make)
        assert skill.mean() > np.mean(KAPLAN["lim"]) + 0.08
