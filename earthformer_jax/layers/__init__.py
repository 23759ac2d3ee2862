"""Flax modules that several models share, around the functions of `ops`."""
