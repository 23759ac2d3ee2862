"""What the scripts of the paper's tables share: rows, trainings, and how they print."""
