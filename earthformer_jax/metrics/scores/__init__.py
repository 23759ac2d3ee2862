"""Scores: NumPy functions of sums, with any axes."""
