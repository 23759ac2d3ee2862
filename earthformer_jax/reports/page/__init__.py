"""What an evaluation leaves for people: a table as CSV, and one page."""
