"""What a training is made of, chosen by its settings, its data and its model."""
