import dataclasses
import json

import numpy as np
import pytest

from earthformer_jax.data import leaks
from earthformer_jax.data.dataset import Channel, Data, Display
from earthformer_jax.data.leaks import Spans
from earthformer_jax.data.task import ForecastFrames
from earthformer_jax.metrics.channels import ChannelScores
from earthformer_jax.metrics.precipitation import RainScores
from earthformer_jax.reports import ModelFunctions, Settings, frames
from earthformer_jax.reports.probabilities import report
from earthformer_jax.reports.probabilities.views import views_of
from tests.reports.nino import test_report as nino_case

EXAMPLES, MEMBERS, SHAPE = 40, 8, (3, 6, 7, 1)


@dataclasses.dataclass(frozen=True)
class Source:
    """The last input, times 0.8 for each frame, plus noise of 0.1, 0.2, ...

    It is the truth of "codes" in 0..1, of which some are 0.
    """

    seed: int
    count: int = EXAMPLES

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        rng = np.random.default_rng((self.seed, i))
        last = rng.uniform(0, 1, size=(1, *SHAPE[1:])).astype(np.float32)
        mean, std = centre(last[None])
        targets = np.maximum(mean + std * rng.normal(size=SHAPE), 0)[0]
        return {
            "inputs": last,
            "targets": targets.astype(np.float32),
            "number": np.int32(i),
        }


def centre(inputs):
    """Mean `[b, k, h, w, 1]` and standard deviation of the truth."""
    lead = np.arange(1, SHAPE[0] + 1, dtype=np.float32)[:, None, None, None]
    return inputs[:, -1:] * 0.8**lead, 0.1 * lead


def data(validation=EXAMPLES, **more):
    return Data(
        name="codes",
        description="codes that fade",
        train=Source(0),
        validation=Source(1, validation),
        test=Source(2),
        loss_weights=np.ones((1, 1, 1, 1)),
        display=Display((Channel("VIL", "code", 255.0),), "5 min"),
        **more,
    )


def model(spread=1.0):
    def members(batch):
        mean, std = centre(batch["inputs"])
        drawn = [
            np.random.default_rng((7, int(i))).normal(size=(MEMBERS, *SHAPE))
            for i in batch["number"]
        ]
        fields = mean + spread * std * np.stack(drawn, axis=1)
        return np.maximum(fields, 0).astype(np.float32)

    def forecast(batch):
        return members(batch).mean(axis=0)

    return ModelFunctions(forecast, members=members, size=MEMBERS)


def task():
    return ForecastFrames(metric=RainScores(thresholds=(74, 133)), mse_units="code^2")


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    scores = frames.score(task(), data(), model(), folder, Settings(5, 2))
    return folder, scores


def test_a_model_that_draws_is_scored_beside_dressed_references(scored):
    folder, scores = scored
    assert json.loads((folder / "scores.json").read_text()) == scores
    found = scores["probabilities"]
    assert found["about"]["members"] == MEMBERS
    assert list(found["views"]) == ["field"]
    assert found["views"]["field"]["units"] == "code"
    forecasts = found["views"]["field"]["forecasts"]
    assert list(forecasts) == ["model", "persistence", "model_dressed"]
    own, persistence = forecasts["model"], forecasts["persistence"]
    assert own["ratio"] == pytest.approx(1, abs=0.05)
    assert own["flatness"]["p_value"] > 0.01
    assert own["crps"] < persistence["crps"]
    gap = own["differences"]["persistence"]
    assert gap["interval"][0] < gap["crps"] < gap["interval"][1] < 0
    assert gap["crps"] == pytest.approx(own["crps"] - persistence["crps"], rel=0.01)
    assert list(own["events"]) == [">=74", ">=133"]
    assert own["events"][">=74"]["brier"] < persistence["events"][">=74"]["brier"]
    assert (folder / "figures" / "calibration.png").stat().st_size > 10_000


def test_the_table_says_what_is_better(scored):
    text = report.table(scored[1]["probabilities"])
    assert "8 members" in text and "40 validation examples" in text
    assert "Brier >=74" in text and "persistence" in text
    assert "to the best dressed reference, persistence" in text
    assert "Rank histogram: chi-square" in text


def test_too_narrow_members_are_found_out(scored):
    found = report.score(task(), data(), model(0.5), {}, Settings(8, 2))
    narrow = found["views"]["field"]["forecasts"]["model"]
    right = scored[1]["probabilities"]["views"]["field"]["forecasts"]["model"]
    assert narrow["ratio"] < 0.65
    assert narrow["flatness"]["p_value"] < 1e-6
    assert narrow["crps"] > right["crps"]


def test_without_validation_there_are_no_dressed_references():
    found = report.score(
        task(), data(0), model(), {"x": model().forecast}, Settings(8, 2)
    )
    assert list(found["views"]["field"]["forecasts"]) == ["model"]
    assert "Rank histogram" in report.table(found)


def test_single_forecasts_have_no_probabilities():
    only = ModelFunctions(model().forecast)
    assert report.scores_of(task(), data(), only, {}, Settings(5, 2)) == {}
    assert report.lines({"forecasts": {}}) == []


def test_windows_that_share_frames_are_drawn_together():
    start = np.arange(EXAMPLES)
    splits = {
        split: Spans(start + shift, start + shift + 1, start + shift + 3)
        for split, shift in (("train", 0), ("validation", 100), ("test", 200))
    }
    assert report.block_of(task(), data()) == 1
    assert report.block_of(task(), data(spans=splits)) == 4


def test_examples_at_places_of_their_own_are_drawn_one_by_one():
    splits = {
        split: leaks.of_keys(np.arange(1, EXAMPLES + 1) + number * EXAMPLES)
        for number, split in enumerate(("train", "validation", "test"))
    }
    assert report.block_of(task(), data(spans=splits)) == 1


def test_windows_of_an_event_are_drawn_together():
    @dataclasses.dataclass(frozen=True)
    class Events(Source):
        def __getitem__(self, i):
            return {**super().__getitem__(i), "event": np.int32(7 - i // 3)}

    for count, samples in ((EXAMPLES, 1000), (9, 0)):
        of_events = dataclasses.replace(data(), test=Events(2, count))
        found = report.score(task(), of_events, model(), {}, Settings(8, 2))
        assert found["about"]["block"] == 3
        assert found["about"]["samples"] == samples
        interval = found["views"]["field"]["forecasts"]["model"]["crps_interval"]
        assert np.isfinite(interval).all() == bool(samples)


def test_several_quantities_are_in_model_units_unless_they_share_them():
    metric = ChannelScores(("T", "P"))
    channels = (Channel("T", "K", 2.0), Channel("P", "hPa", 5.0))
    both = dataclasses.replace(data(), display=Display(channels))
    (view,) = views_of(ForecastFrames(metric=metric), both)
    assert view.units == "model units" and not view.metric["events"]


def members_of(batch):
    noise = np.random.default_rng(3).normal(size=(6, *np.shape(batch["targets"])))
    return (batch["targets"] + 0.3 * noise).astype(np.float32)


def test_el_nino_is_scored_by_its_index_as_well(tmp_path):
    def known(of):
        def gaussian(batch):
            mean = of(batch["targets"])
            return np.stack([mean, np.full_like(mean, 0.25)])

        return gaussian

    kind, source = nino_case.enso_task(), nino_case.enso_data()
    box = nino_case.weights()

    def index(x):
        return np.einsum("bkhwc,hw->bk", x, box)[..., None, None, None]

    kind = dataclasses.replace(
        kind,
        references={**kind.references, "ceiling": lambda batch: batch["targets"]},
        gaussians={"ceiling": {"field": known(lambda x: x), "nino34": known(index)}},
    )
    display = Display((Channel("SST anomaly", "K", nino_case.SCALE),), "month")
    source = dataclasses.replace(source, display=display)
    functions = ModelFunctions(
        lambda batch: members_of(batch).mean(axis=0), members=members_of, size=6
    )
    settings = Settings(4, 2)
    found = report.score(kind, source, functions, kind.references, settings)
    views = found["views"]
    assert list(views) == ["field", "nino34"]
    for view in views.values():
        assert view["units"] == "K"
        assert list(view["forecasts"]) == [
            "model",
            "lim",
            "persistence",
            "model_dressed",
            "ceiling",
        ]
        # The truth itself, with a spread of 0.25 in model units.
        exact = nino_case.SCALE * 0.25 * (np.sqrt(2 / np.pi) - 1 / np.sqrt(np.pi))
        assert view["forecasts"]["ceiling"]["crps"] == pytest.approx(exact, rel=1e-4)
    assert list(views["nino34"]["forecasts"]["model"]["events"]) == [">=0.5", "<=-0.5"]
    report.draw({"probabilities": found}, source, tmp_path)
    assert (tmp_path / "calibration.png").exists()
    assert (tmp_path / "calibration_nino34.png").exists()
