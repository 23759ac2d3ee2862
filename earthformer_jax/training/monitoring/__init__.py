"""Seeing a training: its speed, traces of its steps, and trackers elsewhere."""
