"""Table 13: the models on SEVIR, CSI of each lead time and then their mean.

    python experiments/table13.py --scale=quick                 # the radar twin
    python experiments/table13.py --scale=paper --path=SEVIR
    python experiments/table13.py --costs

The order of averaging of the SEVIR Dataset Challenge: counts are added for each lead
time, CSI is the mean over lead times and thresholds; M3 are the thresholds 16, 74 and
133, M6 all. The trainings are those of table 6. Of the paper's table only persistence
and the Earthformer are given here.
"""

from paper.models_of_paper import CLAIMS, notes, rows_of
from paper.program import main
from paper.table import Column, Table

COLUMNS = (
    Column("csi_m3_by_lead_mean", "CSI-M3", 4),
    Column("csi_m_by_lead_mean", "CSI-M6", 4),
)
PAPER = {"earthformer": {"sevir": (0.6266, 0.4359)}}
TABLE = Table(
    name="table13",
    title="Table 13: models on SEVIR, mean of the CSI of each lead time",
    data=("sevir",),
    columns={"sevir": COLUMNS},
    rows=rows_of("sevir", PAPER),
    claims=CLAIMS,
    references={"persistence": {"sevir": (0.4386, 0.2695)}},
    notes=notes(),
)

if __name__ == "__main__":
    raise SystemExit(main(TABLE, __doc__))
