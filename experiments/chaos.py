r"""Two nearly identical starts: N-body MNIST forgets them, MovingMNIST does not.

    python experiments/chaos.py --out=runs/chaos [--digits=MNIST]
    python experiments/chaos.py --out=runs/chaos --change=velocity     # figure 11

Every sequence is run twice; in the second run each digit starts half a pixel away, in a
random direction, or with --change=velocity at the same place with a velocity that
differs by a tenth of a pixel per frame. Writes chaos.png, two strips that overlay both
runs and the distance between them over time, and chaos.json with the distances.

Digits that move at constant speed keep this distance: bouncing off a wall changes it by
one step at most. If the digits attract each other, it grows exponentially until the
runs have nothing in common. Within the 20 frames of the data set it doubles on average;
the runs here are five times as long.

With other velocities both data sets part: MovingMNIST in proportion to time until the
digits bounce, N-body MNIST slowly at first. The 20 frames of the data set are too few
to tell them apart (1.0 pixels in N-body MNIST, 1.9 in MovingMNIST); after 100 frames
the distances are 17 and 10 pixels.

Reference:
    Gao et al. 2022, Earthformer, https://arxiv.org/abs/2207.05833, appendix D, where
    the velocities are changed.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from earthformer_jax import plotting
from earthformer_jax.data.mnist import moving_generator, nbody_generator
from earthformer_jax.data.mnist.digits import load_digits
from earthformer_jax.plotting.style import STYLE

FRAMES = 101
DATA_FRAMES = 20  # in a sequence of the data sets
SIZE = 64
PAIRS = 64
# What differs between the runs, by how much, and in words.
NUDGES = {"position": 0.5, "velocity": 0.1}  # pixels of a frame, pixels per frame
TITLES = {
    "position": "Two runs that start half a pixel apart",
    "velocity": "Two runs whose velocities differ by a tenth of a pixel per frame",
}

FIRST, SECOND = np.array([1.0, 0.42, 0.12]), np.array([0.1, 0.62, 1.0])  # RGB of runs
COLOURS = {"N-body MNIST": "#b2182b", "MovingMNIST": "#2166ac"}
STRIP = 11  # frames shown of each run
LEFT = 0.088  # where the axes begin, as a share of the figure
LIMITS = 0.1, 50.0  # of the curves, in pixels


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Sequences that are run twice.

    Attributes:
        corners: `[pairs, 2, t, n, 2]`, of every digit in both runs, pixels of a frame.
        frames: `(pair) -> [2, t, h, w]` in 0..1.
    """

    corners: np.ndarray
    frames: Callable[[int], np.ndarray]

    @property
    def distance(self) -> np.ndarray:
        """Mean distance between each digit and its counterpart, `[pairs, t]`."""
        apart = self.corners[:, 0] - self.corners[:, 1]
        return np.linalg.norm(apart, axis=-1).mean(axis=-1)

    @property
    def typical(self) -> int:
        """The pair with the median distance in the last frame."""
        return int(np.argsort(self.distance[:, -1])[len(self.distance) // 2])


def nbody(
    images: np.ndarray,
    pairs: int = PAIRS,
    frames: int = FRAMES,
    nudge: float | None = None,
    seed: int = 0,
    attraction: float = nbody_generator.Rules.G,
    change: str = "position",
) -> Pairs:
    """Pairs of N-body sequences.

    Args:
        images: uint8 `[m, 28, 28]` digits.
        pairs: number of pairs.
        frames: number of frames of each sequence.
        nudge: distance between the two starts in pixels, or between the two velocities
            in pixels per frame; None: that of `NUDGES`.
        seed: of all random draws.
        attraction: 0 lets the digits move at constant speed.
        change: what differs, "position" or "velocity".
    """
    nudge = NUDGES[change] if nudge is None else nudge
    rules = nbody_generator.Rules(frames=frames, size=SIZE, G=attraction)
    images, boxes = nbody_generator.cropped(images)
    pixel = rules.canvas / rules.size
    show = jax.jit(lambda *x: nbody_generator.render(*x, rules))

    @jax.jit
    @jax.vmap
    def simulate(key):
        draw_key, nudge_key = jax.random.split(key)
        draw = nbody_generator.draw(draw_key, len(images), rules)
        box = jnp.asarray(boxes)[draw.digits]
        position, velocity = nbody_generator.start(draw, box, rules)
        angle = jax.random.uniform(nudge_key, draw.angle.shape, maxval=2 * np.pi)
        away = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        places, velocities = jnp.stack([position] * 2), jnp.stack([velocity] * 2)
        if change == "position":
            places = places.at[1].add(nudge * pixel * away)
        else:
            velocities = velocities.at[1].add(nudge * pixel / rules.every * away)
        paths = jax.vmap(
            lambda p, v: nbody_generator.simulate(p, v, box, rules)[:: rules.every]
        )(places, velocities)
        return draw.digits, paths

    digits, paths = map(
        np.asarray, simulate(jax.random.split(jax.random.key(seed), pairs))
    )

    def shown(pair: int) -> np.ndarray:
        return np.stack([show(images[digits[pair]], path) for path in paths[pair]])

    return Pairs(paths / pixel, shown)


def moving(
    images: np.ndarray,
    pairs: int = PAIRS,
    frames: int = FRAMES,
    nudge: float | None = None,
    seed: int = 0,
    change: str = "position",
) -> Pairs:
    """Pairs of MovingMNIST sequences; the arguments are those of `nbody`."""
    nudge = NUDGES[change] if nudge is None else nudge
    starts, paths = [], []
    room = SIZE - moving_generator.DIGIT
    for pair in range(pairs):
        generator = np.random.default_rng((seed, pair))
        start = moving_generator.draw(generator, len(images), 2, SIZE)
        angle = generator.uniform(0, 2 * np.pi, len(start.digits))
        away = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        place, velocity = start.position, start.velocity
        if change == "velocity":
            velocity = velocity + nudge * away
        else:  # inwards if the wall is closer than the nudge
            beyond = (place + nudge * away < 0) | (place + nudge * away > room)
            place = place + nudge * np.where(beyond, -away, away)
        starts.append(start)
        paths.append(
            [
                moving_generator.trajectory(p, v, frames, SIZE)
                for p, v in ((start.position, start.velocity), (place, velocity))
            ]
        )

    def shown(pair: int) -> np.ndarray:
        digits = images[starts[pair].digits]
        runs = [moving_generator.render(digits, path, SIZE) for path in paths[pair]]
        return np.stack(runs) / 255

    return Pairs(np.array(paths), shown)


def overlaid(frames: np.ndarray) -> np.ndarray:
    """RGB `[t, h, w, 3]` of two runs `[2, t, h, w]`: white where they agree."""
    first, second = frames[..., None]
    return np.clip(first * FIRST + second * SECOND, 0, 1)


def figure(experiments: dict[str, Pairs], change: str = "position") -> Figure:
    """Strips of a typical pair of each data set, and the distances over time.

    Args:
        experiments: by data set.
        change: what differs between the runs.
    """
    frames = next(iter(experiments.values())).distance.shape[1]
    shown = np.round(np.linspace(0, frames - 1, STRIP)).astype(int)
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(11.0, 7.0))
        FigureCanvasAgg(canvas)
        outer = canvas.add_gridspec(
            2,
            1,
            height_ratios=(1.0, 1.7),
            hspace=0.13,
            left=LEFT,
            right=0.985,
            top=0.875,
            bottom=0.08,
        )
        strips = outer[0].subgridspec(len(experiments), STRIP, wspace=0.05, hspace=0.07)
        for row, (name, pairs) in enumerate(experiments.items()):
            pictures = overlaid(pairs.frames(pairs.typical))
            for column, number in enumerate(shown):
                axes = canvas.add_subplot(strips[row, column])
                axes.imshow(pictures[number], interpolation="nearest")
                axes.set(xticks=[], yticks=[])
                for spine in axes.spines.values():
                    spine.set_visible(False)
                if row == 0:
                    text = f"frame {number}" if column == 0 else f"{number}"
                    axes.set_title(text, fontsize=9.5, color="0.3", pad=4)
                if column == 0:
                    axes.set_ylabel(
                        name.replace("MNIST", "\nMNIST").replace(" \n", "\n"),
                        fontweight="bold",
                        color=COLOURS[name],
                        rotation=0,
                        ha="right",
                        va="center",
                        labelpad=7,
                    )
        _curves(canvas.add_subplot(outer[1]), experiments)
        canvas.text(
            LEFT,
            0.965,
            TITLES[change],
            fontsize=14,
            fontweight="bold",
        )
        canvas.text(
            LEFT,
            0.932,
            "A typical pair of each: one run orange, one blue, white where they agree",
            fontsize=10.5,
            color="0.3",
        )
    return canvas


def _curves(axes, experiments: dict[str, Pairs]) -> None:
    """Distance over time: the mean, and the range of most pairs."""
    axes.axvspan(0, DATA_FRAMES - 1, color="0.95", zorder=0, linewidth=0)
    for name, pairs in experiments.items():
        colour, distance = COLOURS[name], pairs.distance
        time, mean = np.arange(distance.shape[1]), distance.mean(axis=0)
        low, high = np.quantile(distance, (0.1, 0.9), axis=0)
        # Runs of other velocities start at the same place.
        low, mean = (np.maximum(x, LIMITS[0]) for x in (low, mean))
        axes.fill_between(time, low, high, color=colour, alpha=0.14, linewidth=0)
        axes.plot(time, mean, color="white", linewidth=5)
        axes.plot(time, mean, color=colour, linewidth=2.8)
        others = [x.distance[:, -1].mean() for n, x in experiments.items() if n != name]
        below = any(mean[-1] < x < 5 * mean[-1] for x in others)
        axes.annotate(
            f"{name}, mean of {len(distance)} pairs",
            (time[-1], mean[-1]),
            xytext=(-4, -18 if below else 9),
            textcoords="offset points",
            color=colour,
            fontweight="bold",
            ha="right",
        )
    axes.text(
        (DATA_FRAMES - 1) / 2,
        LIMITS[1] / 1.25,
        "a sequence of\nthe data set",
        ha="center",
        va="top",
        fontsize=9,
        color="0.45",
    )
    axes.text(
        time[-1] - 0.8,
        LIMITS[0] * 1.15,
        "shaded: 80 % of the pairs",
        ha="right",
        va="bottom",
        fontsize=9,
        color="0.45",
    )
    axes.set_yscale("log")
    axes.set_ylim(*LIMITS)
    axes.set_xlim(0, time[-1])
    axes.yaxis.set_major_locator(FixedLocator([0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("Frame")
    axes.set_ylabel("Distance between the runs (pixels)")


def main(arguments: list[str] | None = None) -> None:
    """Writes the figure and the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder")
    parser.add_argument("--digits", default="", help="folder with MNIST's files")
    parser.add_argument("--change", choices=tuple(NUDGES), default="position")
    options = parser.parse_args(arguments)
    images = load_digits(options.digits).train
    change = options.change
    experiments = {
        "N-body MNIST": nbody(images, change=change),
        "MovingMNIST": moving(images, change=change),
    }
    plotting.save(figure(experiments, change), options.out / "chaos.png")
    means = {name: p.distance.mean(axis=0) for name, p in experiments.items()}
    numbers = {name: np.round(mean, 4).tolist() for name, mean in means.items()}
    (options.out / "chaos.json").write_text(json.dumps(numbers, indent=2) + "\n")
    for name, mean in means.items():
        print(
            f"{name}: {mean[0]:.2f} pixels apart in the first frame, "
            f"{mean[DATA_FRAMES - 1]:.2f} in frame {DATA_FRAMES - 1}, "
            f"{mean[-1]:.2f} in frame {len(mean) - 1}"
        )


if __name__ == "__main__":
    main()
