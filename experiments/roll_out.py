r"""The error of forecasts fed back, beside that of a model trained for all leads.

    for k in 10 5 1; do
        python -m earthformer_jax.main --config=configs/climate.py:quick,unet \
            --config.data.out_len=$k --workdir=runs/roll-$k
    done
    python experiments/roll_out.py runs/roll-10 runs/roll-5 runs/roll-1

Prints a table: mean squared error by lead, in the units that the models see, over the
test windows of the first model. Its leads are those of the table; the other models,
trained on the same series with fewer frames, reach them by roll-out.
"""

import argparse

import numpy as np

import earthformer_jax as ef
from earthformer_jax import data
from earthformer_jax.data.forecasting.beginnings import Starts
from earthformer_jax.data.readers import times
from earthformer_jax.forecast.chunks import chunks
from earthformer_jax.run.trained import TrainedModel


def truth(model: TrainedModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a model is scored on, and the last frames before it.

    Returns:
        minutes `[n]` of the last inputs, these `[n, 1, h, w, c]`, and targets
        `[n, k, h, w, c]`.
    """
    in_len, channels = model.input_shape[0], model.target_shape[-1]
    test = model.data.test
    examples = [test[i] for i in range(len(test))]
    minutes = np.array([example["time"][in_len - 1] for example in examples])
    last = np.stack([example["inputs"][-1:, ..., :channels] for example in examples])
    return minutes, last, np.stack([example["targets"] for example in examples])


def forecasts(model: TrainedModel, minutes: np.ndarray, steps: int) -> np.ndarray:
    """Forecasts `[n, steps, h, w, c]` that begin at some minutes."""
    assert model.state is not None
    first, stop = (times.text(int(m)).replace(" ", "T") for m in minutes[[0, -1]])
    found = data.beginnings(model.config.data, model.state, Starts(first, stop))
    assert found.reference is not None
    values = np.zeros((len(found.windows), steps, *model.target_shape[1:]), np.float32)
    out_len = model.target_shape[0]
    for chunk in chunks(model, found, steps, batch_size=64, out_len=out_len):
        leads = slice(chunk.step, chunk.step + chunk.values.shape[1])
        values[chunk.first : chunk.first + len(chunk.values), leads] = chunk.values
    chosen = np.searchsorted(found.reference.minutes, minutes)
    assert np.array_equal(found.reference.minutes[chosen], minutes)
    return values[chosen]


def main():
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("workdirs", nargs="+", help="the longest forecast first")
    models = [ef.load(folder) for folder in parser.parse_args().workdirs]
    steps = models[0].target_shape[0]
    minutes, last, targets = truth(models[0])
    rows = {"persistence": last}
    for model in models:
        frames = model.target_shape[0]
        kind = " at once" if frames == steps else ", fed back"
        rows[f"{frames} frame{'s' * (frames > 1)}{kind}"] = forecasts(
            model, minutes, steps
        )
    print(f"{len(minutes)} test windows")
    print("| lead |", " | ".join(map(str, range(1, steps + 1))), "| mean |")
    print("|" + " --- |" * (steps + 2))
    for name, values in rows.items():
        error = np.square(values - targets).mean(axis=(0, 2, 3, 4))
        numbers = [f"{x:.3f}" for x in [*error, error.mean()]]
        print(f"| {name} |", " | ".join(numbers), "|")


if __name__ == "__main__":
    main()
