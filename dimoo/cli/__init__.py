"""The command line. Nothing here imports torch before a command runs."""

from dimoo.cli.app import app, main

__all__ = ["app", "main"]
