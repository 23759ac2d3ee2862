"""Climate cubes: the embedded one, and reanalysis files."""

import numpy as np
import pytest

from earthformer_jax import data
from earthformer_jax.data import pipeline
from tests import golden_files


def load(seed=0, **settings):
    return data.load({"name": "climate"} | settings, seed)


def errors(dataset, batch_size=64):
    found = {}
    for name, forecast in dataset.task.references.items():
        state = dataset.task.metric.init()
        for batch in pipeline.evaluation_batches(dataset.data.test, batch_size):
            state = dataset.task.metric.update(state, forecast(batch), batch)
        found[name] = dataset.task.metric.compute(state)
    return found


class TestTwin:
    def test_default(self):
        dataset = load(twin_years=4)
        assert dataset.data.description.startswith(
            "embedded climate twin (synthetic, 4 y"
        )
        assert dataset.data.train[0]["inputs"].shape == (10, 16, 24, 3 + 2)
        assert dataset.data.train[0]["targets"].shape == (5, 16, 24, 3)
        found = {name: scores["mse"] for name, scores in errors(dataset).items()}
        assert found["damped_persistence"] < 0.9 * found["climatology"]
        assert found["climatology"] < found["persistence"]

    def test_variables(self):
        dataset = load(twin_years=3, variables="tp,msl", targets="msl", calendar=False)
        assert dataset.data.train[0]["inputs"].shape[-1] == 2
        assert dataset.task.metric.names == ("msl",)
        with pytest.raises(
            ValueError, match="variables=t2: the embedded .* mean 't2m'"
        ):
            load(variables="t2")

    @pytest.mark.parametrize(
        "settings",
        [dict(level=500), dict(missing=1), dict(axes="thw"), dict(space_step=2)],
    )
    def test_settings_for_files(self, settings):
        with pytest.raises(
            ValueError, match="has no effect on the embedded climate tw"
        ):
            load(**settings)

    def test_name_in_messages(self):
        with pytest.raises(ValueError, match="not a setting of the climate data"):
            load(anomaly=True)


class TestReanalysis:
    def test_ncep(self):
        """Eleven years, four variables, rows from the north, no attributes."""
        path = golden_files.shared_file(
            "data", "climate", "ncep_ncar_daily_2008_2018.nc"
        )
        dataset = load(path=str(path), train_until="2015", validate_until="2016")
        sizes = (
            len(dataset.data.train),
            len(dataset.data.validation),
            len(dataset.data.test),
        )
        assert sizes == (2922 - 14, 366 - 4, 730 - 4)
        units = [channel.units for channel in dataset.data.display.channels]
        assert units == ["kg m-2 s-1", "K", "K", "K"]
        assert dataset.data.coordinates["latitude"][0] == pytest.approx(
            4.7619, abs=1e-3
        )
        found = errors(dataset)
        assert found["persistence"]["mse"] == pytest.approx(1.31, abs=0.1)
        assert found["damped_persistence"]["mse"] < found["climatology"]["mse"] < 1.1
        assert 1.5 < found["damped_persistence"]["rmse_T"] < 2.0  # K

    def test_era5(self):
        """A month of hours: the cycle of the day is removed, not that of the year."""
        path = golden_files.shared_file("data", "climate", "era5_t2m_uk_2019_03.nc")
        dataset = load(path=str(path), in_len=12, out_len=6)
        assert "anomalies (2 harmonics of the day)" in dataset.data.description
        assert dataset.data.train[0]["inputs"].shape == (12, 33, 49, 1 + 4)
        assert dataset.data.display.frame == "1 hour"
        shown = dataset.data.display.channels[0].shown(dataset.data.train[0]["targets"])
        assert np.abs(shown).max() < 15  # K

    @pytest.mark.parametrize(
        ("name", "settings", "message"),
        [
            (
                "eraint_uvz.nc",
                {},
                "level. is needed: 'z' .* 3 levels along level .200",
            ),
            ("eraint_uvz.nc", dict(level=500), "eraint_uvz.nc has 2. Shorten them"),
            ("ERA_Interim_2017*.nc", {}, "has 3 .2017-02..2017-04"),
        ],
    )
    def test_too_short(self, name, settings, message):
        folder = golden_files.shared_file("data", "climate")
        with pytest.raises(ValueError, match=message):
            load(path=f"{folder}/{name}", **settings)
