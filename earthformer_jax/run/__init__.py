"""From a config to a run: the command line, checks, and building blocks of configs."""
