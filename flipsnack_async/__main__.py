"""The command `flipsnack`, and ``python -m flipsnack_async``."""

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
    sys.exit(run())


if __name__ == "__main__":
    main()
