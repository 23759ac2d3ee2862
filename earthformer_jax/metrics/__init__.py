"""Scores as pure streaming sums: init, update, merge, compute."""
