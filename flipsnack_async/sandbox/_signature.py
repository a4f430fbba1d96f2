"""The vendor's signature (https://developers.flipsnack.com/how-to-sign-a-request)."""

import hmac
from collections.abc import Mapping
from hashlib import md5

_UNSIGNED = frozenset({"signature", "file"})


def signature_of(params: Mapping[str, str], secret: str) -> str:
    """Digest the secret followed by every signed name and value, in the order of the names."""
    signed = "".join(name + params[name] for name in sorted(params.keys() - _UNSIGNED))
    return md5((secret + signed).encode(), usedforsecurity=False).hexdigest()


def is_signed(params: Mapping[str, str], secret: str) -> bool:
    """Tell whether *params* carry their own signature, in hex digits of either case."""
    given = params["signature"].lower().encode()
    return hmac.compare_digest(given, signature_of(params, secret).encode())
