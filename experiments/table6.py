"""Table 6: the models on SEVIR, CSI of all lead times together.

    python experiments/table6.py --scale=quick                  # the radar twin
    python experiments/table6.py --scale=paper --path=SEVIR
    python experiments/table6.py --costs

Table 13 scores the same trainings by lead time.
"""

from paper.models_of_paper import CLAIMS, notes, rows_of
from paper.program import main
from paper.table import Column, Table

THRESHOLDS = (219, 181, 160, 133, 74, 16)
COLUMNS = (
    Column("csi_m", "CSI-M", 4),
    *(Column(f"csi_{threshold}", f"CSI-{threshold}", 4) for threshold in THRESHOLDS),
    Column("mse", "MSE x 1000", 4, scale=1e3, lower_is_better=True),
)
# In the order of the columns.
PERSISTENCE = (0.2613, 0.0526, 0.0969, 0.1278, 0.2155, 0.4705, 0.6047, 11.5338)
PAPER = {
    "unet": (0.3593, 0.0577, 0.1580, 0.2157, 0.3274, 0.6531, 0.7441, 4.1119),
    "conv_lstm": (0.4185, 0.1288, 0.2482, 0.2928, 0.4052, 0.6793, 0.7569, 3.7532),
    "predrnn": (0.4080, 0.1312, 0.2324, 0.2767, 0.3858, 0.6713, 0.7507, 3.9014),
    "phydnet": (0.3940, 0.1288, 0.2309, 0.2708, 0.3720, 0.6556, 0.7059, 4.8165),
    "e3d_lstm": (0.4038, 0.1239, 0.2270, 0.2675, 0.3825, 0.6645, 0.7573, 4.1702),
    "rainformer": (0.3661, 0.0831, 0.1670, 0.2167, 0.3438, 0.6585, 0.7277, 4.0272),
    "earthformer-no-global": (
        *(0.4356, 0.1572, 0.2716, 0.3138),
        *(0.4214, 0.6859, 0.7637, 3.7002),
    ),
    "earthformer": (0.4419, 0.1791, 0.2848, 0.3232, 0.4271, 0.6860, 0.7513, 3.6957),
}
TABLE = Table(
    name="table6",
    title="Table 6: models on SEVIR, CSI of all lead times together",
    data=("sevir",),
    columns={"sevir": COLUMNS},
    rows=rows_of("sevir", {key: {"sevir": values} for key, values in PAPER.items()}),
    claims=CLAIMS,
    references={"persistence": {"sevir": PERSISTENCE}},
    notes=notes(),
)

if __name__ == "__main__":
    raise SystemExit(main(TABLE, __doc__))
