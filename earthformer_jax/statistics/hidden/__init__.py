"""Linear systems with states that no observation shows."""
