"""What leaves the sandbox: envelopes, or nothing."""

from typing import Any

import attrs
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ._codes import MESSAGES, OK

Data = dict[str, Any]


@attrs.frozen
class Envelope:
    """The vendor's answer to a call. *data* is left out when there is none, not null."""

    code: int
    status: str
    data: Data | None = None

    def response(self, *, numbers_as_text: bool, http_status: int = 200) -> Response:
        content: Data = {"code": self.code, "status": self.status}
        if self.data is not None:
            content["data"] = self.data
        return JSONResponse(_in_text(content) if numbers_as_text else content, http_status)


def done(data: Data) -> Envelope:
    return Envelope(OK, MESSAGES[OK], data)


def refused(code: int) -> Envelope:
    return Envelope(code, MESSAGES[code])


class NoAnswer(Response):
    """Keep the client waiting until it goes away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


def _in_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _in_text(field) for name, field in value.items()}
    if isinstance(value, list):
        return [_in_text(item) for item in value]
    return str(value)
