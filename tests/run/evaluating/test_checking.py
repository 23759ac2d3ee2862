"""What could not be reported is refused before forecasts are made."""

import dataclasses

import ml_collections
import pytest

from earthformer_jax.data.dataset import Dataset
from earthformer_jax.metrics.verification import Score
from earthformer_jax.models import create_model
from earthformer_jax.run.parts import check_report
from earthformer_jax.settings import ConfigError
from tests.reports.verification.fields import IN_LEN, OUT_LEN, SIDE, TASK, data


def test_a_score_function_of_another_module():
    def own(sums):
        return sums["squared"]

    model = create_model(
        "persistence", (IN_LEN, SIDE, SIDE, 1), (OUT_LEN, SIDE, SIDE, 1)
    )
    config = ml_collections.ConfigDict(
        {"model": {"name": "persistence"}, "data": {}, "eval": {"write_forecasts": 0}}
    )
    check_report(config, Dataset(data(3), TASK), model)
    verification = dataclasses.replace(
        TASK.verification, scores={"own": Score("errors", own)}
    )
    task = dataclasses.replace(TASK, verification=verification)
    message = "Task.verification: the score function .*own cannot be kept in sums.nc"
    with pytest.raises(ConfigError, match=message):
        check_report(config, Dataset(data(3), task), model)
