"""Scores of forecasts that are made to have the observed distribution."""
