"""What the environment says of a client: its key and secret, its hosts, its rates."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import BinaryIO, Final, NoReturn

from .errors import ConfigurationError, InvalidArgumentError
from .quota import Rate

KEY: Final = "FLIPSNACK_API_KEY"
SECRET: Final = "FLIPSNACK_API_SECRET"  # noqa: S105  its name
SECRET_FILE: Final = "FLIPSNACK_API_SECRET_FILE"  # noqa: S105

API_URL: Final = "FLIPSNACK_API_URL"
UPLOAD_URL: Final = "FLIPSNACK_UPLOAD_URL"
RATES: Final = "FLIPSNACK_RATES"

LONGEST_SECRET: Final = 4096


def api_key() -> str:
    return os.environ.get(KEY) or _missing(KEY, "set it to what Flipsnack gave you")


def api_secret() -> str:
    """Return the secret, from its variable or from the file that another one names."""
    path = os.environ.get(SECRET_FILE)
    if not path:
        remedy = f"set it to what Flipsnack gave you, or {SECRET_FILE} to a file that holds it"
        return os.environ.get(SECRET) or _missing(SECRET, remedy)
    if os.environ.get(SECRET):
        raise ConfigurationError(SECRET_FILE, f"is set, and so is {SECRET}; set only one of them")
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            return _read(file)
    except OSError as error:
        problem = error.strerror
    # Not its path: that may be the secret itself, by a slip.
    raise ConfigurationError(SECRET_FILE, f"names a file that cannot be read: {problem}")


def url(name: str, default: str) -> str:
    return os.environ.get(name) or default


def rates(default: Sequence[Rate]) -> Sequence[Rate]:
    try:
        text = os.environ.get(RATES)
        return Rate.parse(text) if text else default
    except InvalidArgumentError as error:
        remedy = error.remedy
    raise ConfigurationError(RATES, remedy)


def named(error: ConfigurationError) -> ConfigurationError:
    """Say the same of the variable that the setting came from."""
    names = {
        "api_key": KEY,
        "api_secret": SECRET_FILE if os.environ.get(SECRET_FILE) else SECRET,
        "api_url": API_URL,
        "upload_url": UPLOAD_URL,
    }
    return ConfigurationError(names.get(error.setting, error.setting), error.remedy)


def _missing(name: str, remedy: str) -> NoReturn:
    raise ConfigurationError(name, f"is not set; {remedy}")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # for the other end of a pipe


def _read(file: BinaryIO) -> str:
    about = os.fstat(file.fileno())
    if not stat.S_ISREG(about.st_mode):
        raise ConfigurationError(SECRET_FILE, "names no file; give one that holds the secret alone")
    if os.name == "posix" and about.st_mode & stat.S_IRWXO:
        problem = "names a file that is open to everybody; close it with chmod o-rwx"
        raise ConfigurationError(SECRET_FILE, problem)
    if about.st_size > LONGEST_SECRET:
        raise ConfigurationError(SECRET_FILE, "names a file that holds more than a secret")
    # Straight to the caller: what has a name here is in a traceback that shows locals.
    return file.read().decode(errors="replace").rstrip("\r\n")
