"""
Answers that do not arrive.

To break off, an answer needs a hand on the connection, which is no part of
ASGI: whoever runs the application puts one into the state of its scope.
"""

from collections.abc import AsyncIterator, Callable

import attrs
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

CONNECTION = "connection"


@attrs.frozen
class Connection:
    """
    The two ways to end one, both after what has been said: politely, or with a bang.

    Where nothing need be sent, *carry* takes a body to whoever reads it.
    """

    close: Callable[[], None]
    reset: Callable[[], None]
    carry: Callable[[AsyncIterator[bytes]], None] | None = None


class NoAnswer(Response):
    """Keep the client waiting until it goes away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await disconnected(receive)


class Reset(Response):
    """Cut the connection without a word."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        breakable(scope).reset()
        await disconnected(receive)


class Torn(Response):
    """Say the first half of *whole*, whose headers promise all of it, and hang up."""

    def __init__(self, whole: Response) -> None:
        super().__init__(whole.body, whole.status_code)
        self.raw_headers = whole.raw_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = breakable(scope)
        half = self.body[: len(self.body) // 2]
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        await send({"type": "http.response.body", "body": half, "more_body": True})
        connection.close()
        await disconnected(receive)


def connection_of(scope: Scope) -> Connection | None:
    """Return the connection of a request, if its server is one of the sandbox's own."""
    connection = scope.get("state", {}).get(CONNECTION)
    return connection if isinstance(connection, Connection) else None


def breakable(scope: Scope) -> Connection:
    """Return the connection of a request, which must be one that can be ended."""
    connection = connection_of(scope)
    if connection is None:
        raise RuntimeError("Only Sandbox.serve() and Sandbox.transport() can break off an answer.")
    return connection


async def disconnected(receive: Receive) -> None:
    """Return when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
