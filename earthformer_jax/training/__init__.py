"""Training a forecaster on a data set: `loop.train`."""
