"""The command line with data and a model that train in seconds.

python -m tests.run.distributed.toy_main CONFIG WORKDIR [flags]

TOY_UNREADABLE=I: process I cannot read the examples of the second half.
"""

import os

from earthformer_jax.run import interrupts

if __name__ == "__main__":
    interrupts.end_when_asked()

# ruff: noqa: E402
import jax
from absl import app

from earthformer_jax import main, reports
from earthformer_jax.reports import scoring
from tests.training import toy


class Unreadable(toy.ToySource):
    """Its second half cannot be read by one of the processes."""

    def __getitem__(self, index):
        this = str(jax.process_index())
        if os.environ.get("TOY_UNREADABLE") == this and index >= self.size // 2:
            raise OSError(5, "Input/output error", "/data/file.nc")
        return super().__getitem__(index)


def report(task, data, model, workdir, settings, about):
    """Scores in one file; without the page, which needs more than a number."""
    del about
    forecasts = {"model": model.forecast}
    found = scoring.evaluate(task.metric, data.test, forecasts, settings.batch_size)
    path = settings.output(workdir, "scores.json")
    assert not path.exists(), "there is one writer"
    scoring.write_json(path, {"forecasts": found})
    return {"forecasts": found}


def build(config):
    """The toy data set and model, without dropout."""
    del config
    train = Unreadable(48, seed=1)
    return toy.dataset(train=train, test=toy.ToySource(11)), toy.ToyModel(dropout=0.0)


if __name__ == "__main__":
    main.build, reports.report = build, report
    jax.config.config_with_absl()
    app.run(main._main, flags_parser=main._parse_flags)
