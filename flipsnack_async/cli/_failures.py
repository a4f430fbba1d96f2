"""From exceptions to one line on stderr and an exit code."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

from flipsnack_async import (
    ArchiveError,
    AuthenticationError,
    ConfigurationError,
    FlipsnackError,
    InvalidArgumentError,
)

from ._readable import printable
from ._wordings import in_words

FAILED: Final = 1
USAGE: Final = 2
PARTLY: Final = 3
CREDENTIALS: Final = 4
INTERRUPTED: Final = 130

EXIT_CODES: Final = """\
Exit codes: 0 done, 1 refused by the API or failed, or a damaged archive, 2 usage, bad argument or
setting, a missing extra, or an archive that is in use or about something else, 3 partly done (some
rows or some deletions failed, or a harvest broke off, or a conversion or a package is not ready
yet, and the same command goes on), 4 wrong or missing credentials, 130 interrupted."""

_CREDENTIALS: Final = (
    "FLIPSNACK_API_KEY",
    "FLIPSNACK_API_SECRET",
    "FLIPSNACK_API_SECRET_FILE",
    "api_key",
    "api_secret",
)


def say(text: str) -> None:
    """Write one line to stderr."""
    print(printable(text), file=sys.stderr)


def tell(error: Exception, *, verbose: bool) -> int:
    """Say on stderr what went wrong, and return the exit code for it."""
    if isinstance(error, click.ClickException):
        say(f"error: {_of_click(error)}")
        return error.exit_code
    if isinstance(error, FlipsnackError):
        say(f"error: {in_words(error)}")
        if verbose:
            _tell_causes(error)
        return _exit_code(error)
    if isinstance(error, OSError) and error.strerror:
        say(f"error: {error.strerror}")  # a full disk, for one
        return FAILED
    say(f"error: unexpected {type(error).__name__}: {error}; please report it")
    if verbose:
        traceback.print_exception(error)
    return FAILED


@contextmanager
def log_on_stderr(verbose: int) -> Iterator[None]:
    """Show this library's log inside the block: from INFO up, or with 2 from DEBUG up."""
    logger = logging.getLogger("flipsnack_async")
    before, handler = logger.level, _StderrHandler()
    if verbose:
        logger.setLevel(logging.DEBUG if verbose > 1 else logging.INFO)
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _StderrHandler(logging.Handler):
    """Write to what stderr is at the time: a progress bar takes its place to stay below."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.lower()}: {record.getMessage()}")


def _of_click(error: click.ClickException) -> str:
    text = error.format_message()
    if isinstance(error, click.UsageError) and error.ctx:
        return f"{text.rstrip('.')}; see {error.ctx.command_path} --help"
    return text


def _exit_code(error: FlipsnackError) -> int:
    match error:
        case AuthenticationError():
            return CREDENTIALS
        case ConfigurationError():
            return CREDENTIALS if error.setting in _CREDENTIALS else USAGE
        case ArchiveError(problem="is damaged"):
            return FAILED
        case InvalidArgumentError() | ArchiveError():
            return USAGE
        case _:
            return FAILED


def _tell_causes(error: BaseException) -> None:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        say(f"caused by {type(cause).__name__}: {cause}")
        _tell_causes(cause)
