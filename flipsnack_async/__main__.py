"""The command `flipsnack`, and ``python -m flipsnack_async``."""

import signal
import sys


def main() -> None:
    """Run the command line, or say what has to be installed for it."""
    try:
        # Not with the module: click and rich are an extra, which may be missing.
        from .cli import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"click", "rich"}:
            raise
        print(
            f"error: the command line needs {error.name}: pip install 'flipsnack-async[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    code = run()
    if code == 130:
        # Threads may have to be waited for; until the very end only this keeps Ctrl-C from it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


if __name__ == "__main__":
    main()
