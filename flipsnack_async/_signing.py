"""
The vendor's signature, and the only place that holds a key and its secret.

His digest is an MD5 over undelimited text that names no time: a signed call
can be repeated for ever, and the signature of one parameter set may fit
another. So a signature is as secret as the secret, and whatever carries one
out of this module shows nothing of itself.

https://developers.flipsnack.com/how-to-sign-a-request
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from string import ascii_lowercase, ascii_uppercase
from typing import Any, Final, NoReturn
from urllib.parse import quote_plus, urlencode

from .errors import ConfigurationError

UNSIGNED: Final = frozenset({"signature", "file"})

MADE_UP: Final = (b"sandbox-key", b"sandbox-secret")
"""What the keys and secrets of sandboxes begin with."""

# Shorter ones are no real keys, and would be found in ordinary words.
SHORTEST: Final = 8

_SALT: Final = os.urandom(16)


class Hidden(bytes):
    """Be bytes for a socket and nothing for a reader."""

    def __repr__(self) -> str:
        return "<hidden>"

    __str__ = __repr__

    def __getitem__(self, index: Any) -> Any:
        # What shortens text before it shows it must not get around that.
        part = super().__getitem__(index)
        return Hidden(part) if isinstance(part, bytes) else part

    def __reduce__(self) -> NoReturn:
        raise TypeError("hidden bytes cannot be pickled")


class Credentials:
    """Keep an API key and its secret, showing neither. Cannot be pickled or copied."""

    __slots__ = ("__weakref__", "_key", "_secret")

    def __init__(self, api_key: str, api_secret: str) -> None:
        # Never raises: what calls this could not forget its text in time, and a traceback that
        # shows locals would hold it. `check` is for after that.
        self._key = _hidden(api_key)
        self._secret = _hidden(api_secret)

    def __repr__(self) -> str:
        return "Credentials(<hidden>)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials cannot be pickled or copied")

    def fingerprint(self) -> bytes:
        """Tell one key from another within this process, without telling the key."""
        return hashlib.sha256(_SALT + self._key).digest()

    def lasting_fingerprint(self, salt: bytes) -> str:
        """Tell one key from another in a file, without telling the key."""
        return hashlib.scrypt(self._key, salt=salt, n=2**14, r=8, p=1, dklen=16).hex()

    def check(self) -> None:
        """Raise `ConfigurationError` where key or secret can't be one: empty, or with a blank."""
        for setting, value in (("api_key", self._key), ("api_secret", self._secret)):
            if not re.fullmatch(rb"[!-~]+", value):
                problem = "is empty, or holds a blank, a line end or another character no key has"
                raise ConfigurationError(setting, problem)

    def are_made_up(self) -> bool:
        """Say whether they are a sandbox's, which are nobody's at the vendor."""
        return self._key.startswith(MADE_UP) or self._secret.startswith(MADE_UP)

    def clean(self, text: str) -> str:
        """Take key and secret, however they are written there, out of somebody else's text."""
        for value in (self._key, self._secret):
            if len(value) >= SHORTEST:
                for form in {value.decode(), quote_plus(value)}:
                    text = _without(form, text)
        return text

    def signed(self, params: Mapping[str, str]) -> tuple[Hidden, Hidden]:
        """Return the key and the signature that go with *params*."""
        fields = {**params, "apiKey": self._key.decode()}
        return self._key, sign(fields, self._secret)

    def signed_query(self, params: Mapping[str, str]) -> Hidden:
        """Return *params*, key and signature as a query string."""
        key, signature = self.signed(params)
        return Hidden(urlencode({**params, "apiKey": key, "signature": signature}).encode())


def sign(params: Mapping[str, str], secret: bytes) -> Hidden:
    """Sign *params*: MD5 of the secret, then of each name and value in the names' byte order."""
    text = "".join(name + params[name] for name in sorted(params) if name not in UNSIGNED)
    digest = hashlib.md5(secret + text.encode(), usedforsecurity=False)
    return Hidden(digest.hexdigest().encode())


_LOWER: Final = str.maketrans(ascii_uppercase, ascii_lowercase)


def _without(value: str, text: str) -> str:
    # No regular expression: that would be remembered, with the key in it.
    value, alike = value.translate(_LOWER), text.translate(_LOWER)
    kept, end = [], 0
    while (start := alike.find(value, end)) >= 0:
        kept.append(text[end:start])
        end = start + len(value)
    return "<hidden>".join([*kept, text[end:]])


def _hidden(text: str) -> Hidden:
    return Hidden(text.encode(errors="surrogatepass") if isinstance(text, str) else b"")
