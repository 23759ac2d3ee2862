import jax
import numpy as np
import pytest

from earthformer_jax.metrics.contract import dims_of
from earthformer_jax.metrics.scores import spatial
from earthformer_jax.metrics.statistics.spectra import (
    Spectra,
    radial_power,
    wavelengths,
)

RNG = np.random.default_rng(0)


def sums_of(statistic, forecast, truth, **batch):
    """In one program, which is quicker than its parts."""
    return jax.device_get(jax.jit(statistic)(forecast, {"targets": truth, **batch}))


power_of = jax.jit(radial_power, static_argnames="taper")


def batch_of(fields):
    """`[b, k, h, w, 1]` of `[b, k, h, w]`."""
    return np.asarray(fields, np.float32)[..., None]


@pytest.mark.parametrize("shape", [(15, 15), (12, 20), (4, 1)])
def test_power_by_definition(shape):
    """Rings of the full transform, with and without the window, in float64."""
    x = RNG.normal(3, 2, shape)
    height, width = shape
    for taper in (False, True):
        window = np.outer(
            *(np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in shape)
        )
        window = window / np.sqrt(np.mean(window**2)) if taper else np.ones(shape)
        y = window * (x - np.average(x, weights=window))
        power = np.abs(np.fft.fft2(y)) ** 2 / x.size
        cycles = np.hypot(
            *np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
        )
        ring = np.round(cycles * max(shape))
        want = [power[ring == r].mean() for r in range(1, max(shape) // 2 + 1)]
        np.testing.assert_allclose(
            power_of(x.astype(np.float32), taper=taper), want, rtol=1e-4, atol=1e-6
        )
    assert len(wavelengths(*shape)) == max(shape) // 2


def test_a_wave_is_found_at_its_length_and_noise_at_all():
    along = 2 * np.pi * np.arange(48) / 48
    wave = np.cos(6 * along)[:, None] * np.ones(48)
    power = np.asarray(power_of(wave.astype(np.float32), taper=False))
    lengths = wavelengths(48, 48)
    assert lengths[np.argmax(power)] == 8 and power[5] > 1e8 * np.delete(power, 5).max()
    tapered = np.asarray(power_of(wave.astype(np.float32)))
    assert lengths[np.argmax(tapered)] == 8
    noise = RNG.normal(size=(200, 24, 24)).astype(np.float32)
    np.testing.assert_allclose(np.mean(power_of(noise), axis=0)[2:], 1, atol=0.1)


def test_sums_by_example_lead_and_variable():
    forecast, truth = RNG.normal(size=(2, 3, 2, 8, 10, 2)).astype(np.float32)
    statistic = Spectra(8, 10, ("a", "b"), scale=(1.0, -3.0))
    assert dims_of(statistic) == ("lead", "variable", "wavelength")
    assert statistic.coords["wavelength"] == (10, 5, 10 / 3, 2.5, 2)
    valid = np.arange(3) < 2
    found = sums_of(statistic, forecast, truth, valid=valid)
    want = 9 * power_of(forecast[1, 1, ..., 1])
    np.testing.assert_allclose(found["forecast"][1, 1, 1], want, rtol=1e-5)
    want = power_of(truth[0, 1, ..., 0])
    np.testing.assert_allclose(found["target"][0, 1, 0], want, rtol=1e-5)
    for name in statistic.names:
        assert found[name].shape == (3, 2, 2, 5) and not np.any(found[name][2])
    together = sums_of(Spectra(8, 10, scale=(1.0, -3.0)), forecast, truth, valid=valid)
    assert dims_of(Spectra(8, 10)) == ("lead", "wavelength")
    for name in statistic.names:
        np.testing.assert_allclose(together[name], found[name].sum(axis=2), rtol=1e-6)
    np.testing.assert_array_equal(together["frames"][0], np.full((2, 5), 2))


def test_only_what_is_observed_has_an_effect():
    forecast, truth = (batch_of(x) for x in RNG.normal(size=(2, 2, 2, 12, 12)))
    observed = RNG.random(truth.shape) > 0.3
    observed[0, 1] = False
    statistic = Spectra(12, 12)
    found, other = (
        sums_of(
            statistic,
            np.where(observed, forecast, a),
            np.where(observed, truth, b),
            observed=observed,
        )
        for a, b in ((7, np.nan), (-1, 5))
    )
    for name in statistic.names:
        np.testing.assert_array_equal(found[name], other[name])
        assert not np.any(found[name][0, 1])
    np.testing.assert_array_equal(found["frames"][:, :, 0], [[1, 0], [1, 1]])
    moved = sums_of(statistic, forecast + 100, truth, observed=observed)
    np.testing.assert_allclose(moved["forecast"], found["forecast"], atol=2e-3)


def test_forecasts_that_are_not_numbers_are_seen():
    truth = batch_of(RNG.normal(size=(2, 1, 8, 8)))
    forecast = truth.copy()
    forecast[0, 0, 3, 3] = np.nan
    sums = sums_of(Spectra(8, 8), forecast, truth)
    np.testing.assert_array_equal(
        np.isnan(sums["forecast"]), [[[True] * 4], [[False] * 4]]
    )
    assert np.isfinite(sums["target"]).all()


def test_constant_fields_have_no_power():
    observed = RNG.random((1, 1, 9, 9, 1)) > 0.2
    fields = np.full((1, 1, 9, 9, 1), 0.1, np.float32)
    sums = sums_of(Spectra(9, 9), fields, fields, observed=observed)
    assert not np.any(sums["forecast"]) and np.all(sums["frames"] == 1)
    assert np.isnan(spatial.power_ratio(sums)).all()
    lengths = wavelengths(9, 9)
    assert np.isnan(spatial.effective_resolution(sums, lengths)).all()
    np.testing.assert_array_equal(spatial.target_power(sums), np.zeros((1, 1, 4)))


def test_resolution_of_fields_that_are_smoothed():
    """A filter that halves the power at wavelengths of 8 cells is found there."""
    truth = RNG.normal(size=(20, 1, 64, 64))
    cycles = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(64)], indexing="ij"))
    gain = 0.5 ** ((8 * cycles) ** 2 / 2)
    smooth = np.fft.ifft2(np.fft.fft2(truth) * gain).real
    statistic = Spectra(64, 64)
    sums = sums_of(statistic, batch_of(smooth), batch_of(truth))
    total = {name: np.asarray(x, np.float64).sum(axis=0) for name, x in sums.items()}
    found = spatial.effective_resolution(total, wavelengths(64, 64))
    assert found.shape == (1, 1) and found[0, 0] == pytest.approx(8, rel=0.05)
    ratio = spatial.power_ratio(total)[0]
    assert ratio[0] > 0.95 and ratio[-1] < 0.01
    mean = spatial.forecast_power(total) / spatial.target_power(total)
    np.testing.assert_allclose(mean[0], ratio)


def resolution(ratios):
    sums = {"forecast": np.asarray([ratios]), "target": np.ones((1, len(ratios)))}
    sums["target"][:, np.isnan(ratios)] = 0
    return spatial.effective_resolution(sums, [16, 8, 4, 2][: len(ratios)])[0, 0]


def test_resolution_from_ratios():
    assert resolution([1, 1, 0.5, 0]) == pytest.approx(4)
    assert resolution([1, 0.75, 0.25, 0.9]) == pytest.approx(np.sqrt(32))
    assert resolution([1, 1, 1, 0.5]) == pytest.approx(2)  # never below
    assert resolution([0.2, 1, 1, 1]) == pytest.approx(16)  # from the beginning
    assert resolution([1, np.nan, 0, 0]) == pytest.approx(8)  # between 16 and 4
    with pytest.raises(ValueError, match="expected one for each position"):
        spatial.effective_resolution({"target": np.ones(3)}, [4, 2])
    with pytest.raises(ValueError, match="the longest first"):
        spatial.effective_resolution({"target": np.ones(2)}, [2, 4])


def test_other_frames_and_channels_are_refused():
    fields = np.zeros((1, 1, 8, 6, 2), np.float32)
    with pytest.raises(ValueError, match="8 x 6 cells: expected height=6 and width=8"):
        Spectra(6, 8)(fields, {"targets": fields})
    with pytest.raises(ValueError, match="2 channels; the scores name 1: a"):
        Spectra(8, 6, ("a",))(fields, {"targets": fields})
    with pytest.raises(
        ValueError, match="height=3 and width=2: expected at least 4 cells"
    ):
        Spectra(3, 2)
