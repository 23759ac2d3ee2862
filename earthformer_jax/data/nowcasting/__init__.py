"""Forecasts of rain that need no training, for all data sets with rain."""
