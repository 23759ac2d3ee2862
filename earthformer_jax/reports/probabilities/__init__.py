"""The report on probabilities: a model that draws beside dressed references."""
