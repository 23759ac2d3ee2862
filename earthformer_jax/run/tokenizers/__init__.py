"""VQ-VAEs: data that are restored, and training one before the model of its codes."""
