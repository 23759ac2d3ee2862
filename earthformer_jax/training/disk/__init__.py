"""What keeps the files of a workdir whole: checksums, progress, one writer."""
