"""Ensembles: members that are trained one after the other, and combined."""
