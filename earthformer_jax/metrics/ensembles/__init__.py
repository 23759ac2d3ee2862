"""Scores of forecasts with probabilities: members, or quantiles of a distribution."""
