"""Calls as they come off the wire: parameters from the query and from a form, and a document."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

import attrs
from starlette.requests import Request

from ._documents import Document
from ._forms import Form, reader_of


@attrs.frozen
class Arrival:
    """A call at the moment it is counted."""

    at: float
    method: str
    params: Mapping[str, str] = attrs.field(repr=False)
    repeats_a_name: bool
    is_readable: bool
    document: Document | None
    file_count: int
    origin: str

    @property
    def action(self) -> str:
        return self.params.get("action", "")


async def read_form(request: Request) -> Form:
    """Read a body to its end, whatever it is, and keep what it holds as a form."""
    reader = reader_of(request.headers.get("content-type", ""))
    async for chunk in request.stream():
        reader.write(chunk)
    return reader.form()


def arrival_of(request: Request, form: Form, at: float) -> Arrival:
    """Put together what came in the query and in the body."""
    query = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    pairs = [*query, *form.fields]
    params = dict(pairs)
    return Arrival(
        at=at,
        method=request.method,
        params=params,
        repeats_a_name=len(params) < len(pairs),
        is_readable=form.is_readable,
        document=form.document,
        file_count=form.file_count,
        origin=str(request.base_url).rstrip("/"),
    )
