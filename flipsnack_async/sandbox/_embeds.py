"""Embed codes, in the form of the vendor's player as public pages show it."""

from base64 import b64encode
from collections.abc import Mapping
from html import escape
from urllib.parse import urlencode

from ._collections import Collection
from ._placeholders import PLAYER_URL
from ._values import number


def embed_code(account_id: str, collection: Collection, params: Mapping[str, str]) -> str:
    width = str(number(params, "width", collection.settings.width, least=1))
    height = str(number(params, "height", collection.settings.height, least=1))
    if params.get("responsive") == "true":
        width = height = "100%"
    address = escape(_address(account_id, collection, params))
    return (
        f'<iframe src="{address}" width="{width}" height="{height}" seamless="seamless" '
        'scrolling="no" frameBorder="0" allow="autoplay; clipboard-read; clipboard-write" '
        "allowFullScreen></iframe>"
    )


def _address(account_id: str, collection: Collection, params: Mapping[str, str]) -> str:
    # The padding stands unescaped in the wild too.
    name = b64encode(f"{account_id}+{collection.hash}".encode()).decode()
    start = {
        place: number(params, place, 1, least=1)
        for place in ("startPage", "startBook")
        if place in params
    }
    return "&".join(filter(None, (f"{PLAYER_URL}?hash={name}", urlencode(start))))
