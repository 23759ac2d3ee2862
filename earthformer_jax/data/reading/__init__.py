"""Reading the examples of a batch, in this process or in others."""
