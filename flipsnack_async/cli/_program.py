"""The program: its commands, and what becomes of whatever they raise."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr

import click

from ._any_call import call
from ._archive import archive
from ._calls import stats, user_stats
from ._collections import embed, get, list_collections, update
from ._delete import delete
from ._failures import EXIT_CODES, INTERRUPTED, USAGE, say, tell
from ._harvest import harvest
from ._package import package
from ._packages import packages
from ._rows import rows
from ._sandbox_command import sandbox
from ._series import series
from ._settings import Settings, shared_options
from ._upload import upload


@click.group(epilog=EXIT_CODES)
@click.version_option(package_name="flipsnack-async", message="%(prog)s %(version)s")
@shared_options(rates_from="FLIPSNACK_RATES")
def cli() -> None:
    """
    Use Flipsnack's API, as fast as your key's limits allow.

    The key is read from FLIPSNACK_API_KEY and FLIPSNACK_API_SECRET, or the
    secret from the file that FLIPSNACK_API_SECRET_FILE names. Results go to
    stdout, as a table on a terminal and as JSON lines elsewhere; progress and
    errors go to stderr. The options below work after a command too.

    \b
    Examples:
      flipsnack --sandbox harvest --all        a first look, without a key
      flipsnack harvest --all --out stats.db
      flipsnack upload spring.pdf --title "Spring catalogue" --wait
    """


for command in (
    user_stats,
    list_collections,
    get,
    stats,
    harvest,
    series,
    rows,
    archive,
    upload,
    update,
    delete,
    embed,
    package,
    packages,
    call,
    sandbox,
):
    cli.add_command(command)


def run(args: Sequence[str] | None = None) -> int:
    """
    Carry out the command line *args*, by default this process's, and return its exit code.

    After an interrupt further ones are ignored: the process is expected to end.
    """
    # A shell may have closed them: >&- and 2>&-
    if sys.stdout is None:
        say("error: stdout is closed; send it to /dev/null if it is of no use")
        return USAGE
    if sys.stderr is None:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):
            return run(args)
    settings = Settings()
    try:
        code = cli.main(args, prog_name="flipsnack", standalone_mode=False, obj=settings)
    except click.Abort:
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except Exception as error:
        return tell(error, verbose=settings.verbose > 0)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseExceptionGroup as errors:
        if errors.split(KeyboardInterrupt)[1] is not None:
            raise
        return INTERRUPTED
    return code or 0
