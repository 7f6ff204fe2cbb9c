"""Checkpoint folders, ours and the published ones: read, written, checked, converted and compared."""
