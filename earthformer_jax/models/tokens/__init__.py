"""Frames as codes: the VQ-VAE that auto-regressive models forecast with."""
