"""Batches on devices that cannot share them equally, and programs of a step."""
