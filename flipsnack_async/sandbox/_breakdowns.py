"""
Answers that do not arrive.

To break off, an answer needs a hand on the connection, which is no part of
ASGI: whoever runs the application puts one into the state of its scope.
"""

from collections.abc import Callable

import attrs
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

CONNECTION = "connection"


@attrs.frozen
class Connection:
    """The two ways to end one: after what has been said, or at once and with a bang."""

    close: Callable[[], None]
    reset: Callable[[], None]


class NoAnswer(Response):
    """Keep the client waiting until it goes away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _disconnect(receive)


class Reset(Response):
    """Cut the connection without a word."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _connection(scope).reset()
        await _disconnect(receive)


class Torn(Response):
    """Say the first half of *whole*, whose headers promise all of it, and hang up."""

    def __init__(self, whole: Response) -> None:
        super().__init__(whole.body, whole.status_code)
        self.raw_headers = whole.raw_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = _connection(scope)
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
        await _disconnect(receive)


def _connection(scope: Scope) -> Connection:
    connection = scope.get("state", {}).get(CONNECTION)
    if not isinstance(connection, Connection):
        raise RuntimeError("Only Sandbox.serve() and Sandbox.transport() can break off an answer.")
    return connection


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
