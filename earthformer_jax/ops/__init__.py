"""Pure functions of arrays: cuboids, attention, patterns, resampling."""
