"""A server on loopback that answers every action, well or badly, and repeats what it was sent."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

import attrs
from canary import KEY, LINK, Eyes
from cutting import CuttingServer, Visit, response

_SIGNATURE: Final = re.compile(rb'(?:signature=|name="signature"\r\n\r\n)([0-9a-f]{32})')


@attrs.frozen
class Asked:
    """What a request said."""

    action: str
    target: str
    body: bytes
    url: str

    @property
    def signature(self) -> str:
        found = _SIGNATURE.search(self.target.encode() + b" " + self.body)
        return found[1].decode() if found else ""

    @property
    def echo(self) -> str:
        """Repeat all that is secret, as it was sent and as it was meant."""
        return f"{self.target} {KEY} {self.signature}" if self.signature else self.target


Reply = Callable[[Asked], bytes]


def serve(reply: Reply, eyes: Eyes) -> CuttingServer:
    """Serve on loopback, and tell *eyes* of each signature that came in."""

    def act(visit: Visit) -> None:
        while True:
            visit.read_all()
            asked = _asked(visit)
            if asked.signature:
                eyes.signatures.add(asked.signature)
            data = reply(asked)
            if data == SILENCE:
                visit.stall()
            visit.send(data)
            if b"Connection: close" in data or not data.startswith(b"HTTP/1.1 200"):
                return

    return CuttingServer(act)


def _asked(visit: Visit) -> Asked:
    mine = [each for each in visit.server.arrived if each.connection == visit.number]
    return Asked(mine[-1].action, visit._target, mine[-1].body, visit.server.url)


SILENCE: Final = b"(silence)"


# --- good answers


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("index.html", "<html></html>")
    return file.getvalue()


PACKAGE: Final = _zip()
NAME: Final = "fxh4k89"
PLACE: Final = f"packages/{NAME}.zip"


def link_of(url: str) -> str:
    return f"{url}{PLACE}?Policy={quote(LINK, safe='')}"


def data_of(asked: Asked) -> dict[str, Any]:
    """Make up the data of a good answer to any action."""
    match asked.action:
        case "collection.getList":
            return {"collections": [{"collectionHash": NAME}], "collectionCount": 1}
        case "collection.downloadHTML":
            return {"status": "COMPLETE", "resourceUrl": link_of(asked.url)}
        case "collection.getEmbed":
            return {"embedCode": "<iframe></iframe>"}
        case "user.getStats" | "collection.getStats":
            return {"impressions": 7, "views": 7, "api_uploads_left": 53}
    return {"collectionHash": NAME, "items": [{"state": "complete"}]}


def good(asked: Asked) -> bytes:
    if PLACE in asked.target:
        return response(PACKAGE)
    return _envelope(data=data_of(asked))


def _envelope(code: Any = 20, status: str = "OK", **more: Any) -> bytes:
    return response(json.dumps({"code": code, "status": status, **more}).encode())


def _with(changes: Callable[[Asked], dict[str, Any]]) -> Reply:
    return lambda asked: _envelope(data={**data_of(asked), **changes(asked)})


def _refusing(code: int) -> Reply:
    return lambda asked: _envelope(code, "no")


def _saying(data: bytes) -> Reply:
    return lambda asked: data


def _page(status: str) -> Reply:
    return lambda asked: response(b"<html>no</html>", status, "Connection: close")


CODES: Final = (22, 30, 31, 32, 33, 34, 38, 41, 43, 44, 99)

FAULTS: Final[dict[str, Reply]] = {
    **{f"code {code}": _refusing(code) for code in CODES},
    "too fast": _page("429 Too Many Requests"),
    "gateway": _page("502 Bad Gateway"),
    "page": _page("200 OK"),
    "redirect": _saying(response(b"", "302 Found", "Location: https://example.com/")),
    "empty": _saying(response(b"")),
    "torn": _saying(response(b'{"code": 20, "data": {"vi')),
    "wrong type": _with(lambda asked: {name: [] for name in data_of(asked)}),
    "failed": _with(lambda asked: {"items": [{"state": "failed"}], "status": "FAILED"}),
    "unfinished": _with(lambda asked: {"items": [{"state": "processing"}], "status": "PROCESSING"}),
    "no HTTP": _saying(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "cut": _saying(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\n{"),
    "hung up": _saying(b""),
}


# --- answers that repeat what was asked


def _header(name: str, status: str = "200 OK") -> Reply:
    return lambda asked: response(b"", status, f"{name}: {asked.echo}", "Connection: close")


def _status_line(asked: Asked) -> bytes:
    return f"HTTP/1.1 404 Not Found {asked.echo}\r\nContent-Length: 0\r\n\r\n".encode()


def _trailer(asked: Asked) -> bytes:
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    return f"{head}2\r\n{{}}\r\n0\r\nX-Asked: {asked.echo}\r\n\r\n".encode()


def _torn_chunk(asked: Asked) -> bytes:
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    return f"{head}{asked.echo}\r\n".encode()


ECHOES: Final[dict[str, Reply]] = {
    "echo in location": _header("Location", "302 Found"),
    "echo in header": _header("X-Asked"),
    "echo in header of a refusal": _header("X-Asked", "404 Not Found"),
    "echo in header of a bare signature": lambda asked: response(
        b'{"code": 41, "status": "no"}', "200 OK", f"X-Asked: {asked.signature}"
    ),
    "echo in cookie": _header("Set-Cookie"),
    "echo in encoding": _header("Content-Encoding"),
    "echo in a bad header": lambda asked: f"HTTP/1.1 200 OK\r\n{asked.echo}\r\n\r\n".encode(),
    "echo in status line": _status_line,
    "echo instead of a status": lambda asked: f"HTTP/1.1 {asked.echo}\r\n\r\n".encode(),
    "echo in trailer": _trailer,
    "echo in a torn chunk": _torn_chunk,
    "echo in page": lambda asked: response(f"<html>{asked.echo}</html>".encode(), "404 Not Found"),
    "echo in torn text": lambda asked: response(f'{{"code": 44, "status": "{asked.echo}"'.encode()),
    "echo in text": lambda asked: _envelope(44, f"Not {asked.echo}"),
    "echo in upper case": lambda asked: _envelope(44, f"Not {asked.echo.upper()}"),
    "echo of a bare key": lambda asked: _envelope(43, f"no {quote(KEY, safe='')} nor {KEY}"),
    "echo as code": lambda asked: _envelope(asked.echo),
    "echo as data": lambda asked: _envelope(data=asked.echo),
    "echo in number": _with(lambda asked: {"views": asked.echo}),
    "echo in name": lambda asked: response(
        f'{{"code": 20, "data": {{"{asked.echo}": NaN}}}}'.encode()
    ),
}
# What is data is handed out as it came, to whoever asked for it.
ECHO_IN_DATA: Final = _with(lambda asked: {"more": asked.echo, "title": asked.echo})


# --- what becomes of a link to a package that is complete


def _following(reply: Reply) -> Reply:
    return lambda asked: reply(asked) if PLACE in asked.target else good(asked)


DOWNLOADS: Final[dict[str, Reply]] = {
    "link is stale": _following(_page("403 Forbidden")),
    "link to a page": _following(_page("200 OK")),
    "link is cut": _following(_saying(FAULTS["cut"](Asked("", "", b"", "")))),
    **{f"link, {name}": _following(ECHOES[name]) for name in ECHOES if "in" in name.split()},
}
