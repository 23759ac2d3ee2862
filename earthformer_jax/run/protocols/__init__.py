"""Trained models that are scored by a named protocol."""
