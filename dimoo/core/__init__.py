"""Configs, errors, shape aliases and random generators: what every other folder may import."""
