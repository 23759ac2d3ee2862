"""Statistics: what one example adds to the sums that scores are made of."""
