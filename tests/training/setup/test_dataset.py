"""What a data set does not have is refused by name."""

import pytest

from earthformer_jax.settings import ConfigError
from earthformer_jax.training.settings import from_config
from earthformer_jax.training.setup.dataset import check_dataset
from tests.training import toy


def settings(**changes):
    return from_config(toy.config(**changes))


class TestCheckDataset:
    def check(self, dataset=None, **changes):
        check_dataset(settings(**changes), dataset or toy.dataset())

    def test_right(self):
        self.check()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (dict(epochs=1.0, batch_size=1000), "batch_size=1000 is more than the"),
            (dict(epochs=1e30), r"epochs=1e\+30: expected at most 2147483647 steps"),
        ],
    )
    def test_epochs_that_make_no_steps(self, changes, message):
        config = toy.config(train__simulated_steps=0)
        config.train.update(changes)
        with pytest.raises(ConfigError, match=message):
            check_dataset(from_config(config), toy.dataset())

    @pytest.mark.parametrize("split", ["train", "validation"])
    def test_empty_split(self, split):
        with pytest.raises(ConfigError, match=f"the {split} split of 'toy' is empty"):
            self.check(toy.dataset(**{split: toy.ToySource(0)}))

    def test_nothing_simulated(self):
        dataset = toy.dataset(simulated=None)
        with pytest.raises(ConfigError, match="simulated_steps=5, but 'toy' has no"):
            self.check(dataset)
        self.check(dataset, train__simulated_steps=0, train__simulated_fraction=0.0)

    @pytest.mark.parametrize("monitor", ["loss", "rmse_by_lead"])
    def test_unknown_monitor(self, monitor):
        with pytest.raises(ConfigError, match=f"{monitor}' is not a score .* of mse"):
            self.check(train__monitor=monitor)
