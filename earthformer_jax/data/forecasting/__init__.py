"""What forecasts begin from, and how fields become what a model sees."""
