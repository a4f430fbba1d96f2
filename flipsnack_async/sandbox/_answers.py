"""The vendor's answers: envelopes."""

from typing import Any

import attrs
from starlette.responses import JSONResponse, Response

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


def done(data: Data | None) -> Envelope:
    return Envelope(OK, MESSAGES[OK], data)


def _in_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _in_text(field) for name, field in value.items()}
    if isinstance(value, list):
        return [_in_text(item) for item in value]
    return str(value)
