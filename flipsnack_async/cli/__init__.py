"""The command line: arguments, a library call, output and an exit code."""

from ._program import cli, run

__all__ = ["cli", "run"]
