"""Rainformer (Bai et al. 2022)."""
