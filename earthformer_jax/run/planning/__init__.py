"""What a training will need, asked before anything runs: `--mode=plan`."""
