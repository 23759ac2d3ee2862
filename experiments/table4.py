"""Table 4: patterns of cuboid attention, with and without global vectors, depth 4,4.

    python experiments/table4.py --scale=quick --data=nbody_mnist
    python experiments/table4.py --only=axial-4,axial-4-global
    python experiments/table4.py --costs

`search.py` looks for further patterns, sizes and shifts under a budget of FLOPs.
"""

from paper.mnist import Numbers, pattern_rows, pattern_table
from paper.program import main


def _numbers(parameters, gflops, *scores):
    moving, nbody = scores[:3], scores[3:]
    return (parameters, gflops), {"moving_mnist": moving, "nbody_mnist": nbody}


# Parameters, GFLOPs; MSE, MAE, SSIM on MovingMNIST, then on N-body MNIST.
PAPER: Numbers = {
    ("axial", False): _numbers(6.61, 33.7, 46.91, 101.5, 0.8825, 15.89, 41.38, 0.9510),
    ("axial", True): _numbers(7.61, 34.0, 41.79, 92.78, 0.8961, 14.82, 39.93, 0.9538),
    ("divided_st", False): _numbers(
        5.70, 35.2, 57.43, 118.6, 0.8623, 18.24, 45.88, 0.9435
    ),
    ("divided_st", True): _numbers(
        6.37, 35.5, 52.92, 108.3, 0.8760, 17.77, 45.84, 0.9433
    ),
    ("video_swin_2x8", False): _numbers(
        5.66, 31.1, 54.45, 111.7, 0.8715, 19.89, 49.02, 0.9374
    ),
    ("video_swin_2x8", True): _numbers(
        6.33, 31.4, 52.70, 108.5, 0.8766, 19.53, 48.43, 0.9389
    ),
    ("video_swin_10x8", False): _numbers(
        5.89, 39.2, 63.34, 125.3, 0.8525, 23.35, 53.17, 0.9274
    ),
    ("video_swin_10x8", True): _numbers(
        6.56, 39.4, 62.15, 123.4, 0.8541, 22.81, 52.94, 0.9293
    ),
    ("spatial_lg_2", False): _numbers(
        6.61, 33.3, 59.88, 122.1, 0.8572, 23.24, 54.63, 0.9263
    ),
    ("spatial_lg_2", True): _numbers(
        7.61, 33.7, 59.42, 122.9, 0.8565, 21.88, 52.49, 0.9305
    ),
    ("spatial_lg_4", False): _numbers(
        6.61, 33.5, 58.72, 118.5, 0.8600, 21.02, 49.82, 0.9344
    ),
    ("spatial_lg_4", True): _numbers(
        7.61, 33.9, 54.84, 115.5, 0.8585, 19.82, 48.12, 0.9371
    ),
    ("axial_space_dilate_2", False): _numbers(
        8.59, 41.8, 50.11, 104.4, 0.8814, 15.97, 42.19, 0.9494
    ),
    ("axial_space_dilate_2", True): _numbers(
        10.30, 42.4, 46.86, 98.95, 0.8884, 15.73, 41.85, 0.9510
    ),
    ("axial_space_dilate_4", False): _numbers(
        8.59, 41.6, 47.40, 99.31, 0.8865, 19.49, 51.04, 0.9352
    ),
    ("axial_space_dilate_4", True): _numbers(
        10.30, 42.2, 45.11, 95.98, 0.8928, 17.91, 46.35, 0.9440
    ),
}
ROWS = pattern_rows(depth=4, small_depth=2, numbers=PAPER)
TABLE = pattern_table(
    "table4",
    "Table 4: patterns of cuboid attention, depth 4,4",
    ROWS,
    "The scale quick has depth 2,2 and a quarter of the channels.",
)

if __name__ == "__main__":
    raise SystemExit(main(TABLE, __doc__))
