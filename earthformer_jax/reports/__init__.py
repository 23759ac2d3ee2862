"""Scores of a trained model beside reference forecasts, as files, tables, figures."""
