"""Forecasts as files: from the latest frames and a trained model to NetCDF."""
