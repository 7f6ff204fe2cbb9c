"""What a run shows while it learns: progress, logs, curves, pictures, validation."""
