"""Speed, measured on the real recipes and tasks: `python -m benchmarks.spine`."""
