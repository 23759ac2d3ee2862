"""Any time series of fields: climate cubes and the user's files."""
