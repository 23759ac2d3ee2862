"""From stored numbers to values: packing, missing values, units."""
