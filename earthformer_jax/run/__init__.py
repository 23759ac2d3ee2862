"""From a config to a run: the command line, the checks, and the recipes."""
