"""Looking at data before anything is trained: inspect a file, show samples."""
