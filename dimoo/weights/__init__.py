"""Published checkpoints to ours and back, as tables of renaming rules."""
