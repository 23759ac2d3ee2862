"""Forecasts of trained models: what Python and the command line share."""
