"""Tools to examine data before training: inspect a file, show samples."""
