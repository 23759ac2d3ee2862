"""The readable results of an evaluation: a table as CSV, and one page."""
