"""The report on El Niño forecasts: scores with intervals, a table and figures."""
