"""Compiled forecasts, kept so that the next process need not trace or compile them."""
