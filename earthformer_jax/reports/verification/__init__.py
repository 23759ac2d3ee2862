"""How sure scores are, and how models compare: from sums by block of test examples."""
