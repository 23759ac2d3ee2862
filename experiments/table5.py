"""Table 5: the models on MovingMNIST and N-body MNIST.

python experiments/table5.py --scale=quick --data=nbody_mnist
python experiments/table5.py --only=unet,earthformer
python experiments/table5.py --costs
"""

from paper.mnist import COLUMNS, DATA
from paper.models_of_paper import CLAIMS, notes, rows_of
from paper.program import main
from paper.table import Table

# MSE, MAE, SSIM on MovingMNIST, then on N-body MNIST.
PAPER = {
    "unet": (110.4, 249.4, 0.6170, 38.90, 94.29, 0.8260),
    "conv_lstm": (62.04, 126.9, 0.8477, 32.15, 72.64, 0.8886),
    "predrnn": (52.07, 108.9, 0.8831, 21.76, 54.32, 0.9288),
    "phydnet": (58.70, 124.1, 0.8350, 28.97, 78.66, 0.8206),
    "e3d_lstm": (55.31, 101.6, 0.8821, 22.98, 62.52, 0.9131),
    "rainformer": (85.83, 189.2, 0.7301, 38.89, 96.47, 0.8036),
    "earthformer-no-global": (46.91, 101.5, 0.8825, 15.89, 41.38, 0.9510),
    "earthformer": (41.79, 92.78, 0.8961, 14.82, 39.93, 0.9538),
}
SCORES = {
    key: {"moving_mnist": values[:3], "nbody_mnist": values[3:]}
    for key, values in PAPER.items()
}
TABLE = Table(
    name="table5",
    title="Table 5: models on MovingMNIST and N-body MNIST",
    data=DATA,
    columns=COLUMNS,
    rows=rows_of("moving_mnist", SCORES),
    claims=CLAIMS,
    notes=notes(),
)

if __name__ == "__main__":
    raise SystemExit(main(TABLE, __doc__))
