"""Named protocols: data, their division, and how forecasts of them are scored."""
