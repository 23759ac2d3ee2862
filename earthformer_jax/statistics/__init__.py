"""Linear statistics in NumPy: EOFs, seasonal linear systems, reference forecasts."""
