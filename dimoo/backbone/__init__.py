"""The bidirectional transformer on packed sequences."""
