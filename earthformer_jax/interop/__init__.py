"""Weights of other code to and from our parameters."""
