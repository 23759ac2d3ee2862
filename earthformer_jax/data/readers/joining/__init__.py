"""Several files as one series: which belong together, and in what order."""
