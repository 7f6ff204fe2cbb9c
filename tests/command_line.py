"""Running `dimoo` commands inside a test."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from dimoo.cli import app


def run(*arguments: object) -> Result:
    """Runs `dimoo ARGUMENTS...` in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def failed(result: Result, *parts: str) -> None:
    """The run ended with one error message that holds the parts: no traceback, nothing on stdout."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr
