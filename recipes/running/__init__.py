"""A run as a whole: its trainer, checkpoints, environment, and what it will cost."""
