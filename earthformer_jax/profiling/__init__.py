"""What a model consists of and costs, counted rather than timed."""
