"""What an evaluation of a run reports."""
