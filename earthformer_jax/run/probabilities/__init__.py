"""The spread of members, fitted on the validation split after training."""
