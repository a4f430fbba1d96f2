"""
The vendor's documentation as a table: whatever it names is in the client and in the sandbox.

Left out on purpose are *format* and *callback*, which would change the form of
every answer, and the names that no stored copy of the pages shows. https and
startBook of getEmbed are deprecated, and can still be sent by `Flipsnack.call`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from hashlib import md5
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import httpx
import pytest
from scripted import client

from flipsnack_async import Flipsnack, Rate, errors
from flipsnack_async._actions import EFFECTS, RESERVED, UPLOADS
from flipsnack_async._envelope import WIRE_NAMES
from flipsnack_async.sandbox import Sandbox
from flipsnack_async.sandbox._codes import MESSAGES

pytestmark = pytest.mark.anyio

TESTS = Path(__file__).parent
PDF = b"%PDF-1.7 a document"
Ask: TypeAlias = Callable[[Flipsnack, str], Awaitable[Any]]


async def listed(flipsnack: Flipsnack, name: str) -> Any:
    return await anext(
        flipsnack.collections.list(status="public", query="a", order_by="name", order="asc")
    )


@attrs.frozen
class Method:
    """How the client calls a method, the parameters the vendor names, and what he answers."""

    ask: Ask
    parameters: set[str] = attrs.field(factory=set)
    fields: Mapping[str, str] = attrs.field(factory=dict)


COLLECTION = {
    "collectionHash": "collection_hash",
    "collectionTitle": "title",
    "collectionDescription": "description",
    "collectionStatus": "status",
    "collectionWidth": "width",
    "collectionHeight": "height",
}
COUNTERS = {name: name for name in ("impressions", "views", "time_spent", "downloads")}
SETTINGS = {"title", "description", "collectionWidth", "collectionHeight", "collectionStatus"}

# https://developers.flipsnack.com/api-reference and its pages
METHODS: dict[str, Method] = {
    "collection.create": Method(
        lambda f, name: f.collections.create(
            PDF, title="A", description="B", width=650, height=385, status="public"
        ),
        {"file", *SETTINGS},
        COLLECTION,
    ),
    "collection.getCollection": Method(
        lambda f, name: f.collections.get(name), {"collectionHash"}, COLLECTION
    ),
    "collection.update": Method(
        lambda f, name: f.collections.update(
            name, title="A", description="B", width=650, height=385, status="public"
        ),
        {"collectionHash", *SETTINGS},
        COLLECTION,
    ),
    "collection.deleteCollection": Method(
        lambda f, name: f.collections.delete(name), {"collectionHash"}
    ),
    "collection.getEmbed": Method(
        lambda f, name: f.collections.get_embed(
            name, width=640, height=480, responsive=True, start_page=2
        ),
        {"collectionHash", "width", "height", "responsive", "startPage"},
        {"embedCode": "embed_code"},
    ),
    "collection.getStats": Method(
        lambda f, name: f.collections.get_stats(
            name, start_date="2026-01-01", end_date="2026-01-31", pages=True
        ),
        {"collectionHash", "startDate", "endDate", "includePageStats"},
        {**COUNTERS, "likes": "likes", "shares": "shares", "pages": "pages"},
    ),
    "collection.getList": Method(
        listed, {"collectionStatus", "query", "orderBy", "orderMode"}, COLLECTION
    ),
    "collection.downloadHTML": Method(
        lambda f, name: f.collections.download_html(name),
        {"collectionHash"},
        {"status": "status", "resourceUrl": "resource_url"},
    ),
    "user.getStats": Method(
        lambda f, name: f.user.get_stats(),
        set(),
        {**COUNTERS, "api_uploads_left": "api_uploads_left"},
    ),
    "zapier.getZapierLeadFormSample": Method(
        lambda f, name: f.call("zapier.getZapierLeadFormSample")
    ),
}
PAGE = {"page", "time_spent", "clicks", "views"}
DEPRECATED = {
    "flipbook.add",
    "flipbook.delete",
    "collection.setLogo",
    "collection.deleteLogo",
    "collection.setBackgroundImage",
    "collection.deleteBackgroundImage",
}

# https://developers.flipsnack.com/api-status-codes
CODES = {
    20: "OK",
    22: "Maintenance mode",
    30: "Missing mandatory parameter",
    31: "Requests per second limit exceeded",
    32: "Requests per minute limit exceeded",
    33: "Uploads per month exceeded",
    34: "File size too large",
    35: "Collection maximum pages number exceeded",
    36: "Multiple files upload not allowed",
    37: "Delete flipbook not available for this collection",
    38: "Collection is in processing state",
    40: "Bad request",
    41: "Invalid credentials",
    42: "Invalid action",
    43: "Forbidden",
    44: "Invalid signature",
    45: "Invalid file format",
    46: "Invalid collection ha",  # every stored copy breaks off here
}


def both() -> Sandbox:
    return Sandbox(legacy_counters=True, export_seconds=0, rates=())


@pytest.mark.parametrize(("action", "method"), METHODS.items(), ids=METHODS)
async def test_every_method_and_parameter_is_in_both(action: str, method: Method) -> None:
    """
    The client sends each parameter under the vendor's name, and the sandbox understands the call.
    """
    box = both()
    async with client(box) as flipsnack:
        await method.ask(flipsnack, box.hashes[0])

    call = box.ledger[0]
    sent = call.params.keys() | ({"file"} if call.size else set())
    assert (action, 20) == (call.action, call.code)
    assert method.parameters == sent
    assert action in EFFECTS
    assert (action in UPLOADS) == (call.size is not None)


@pytest.mark.parametrize(("action", "method"), METHODS.items(), ids=METHODS)
async def test_every_response_field_is_in_both(action: str, method: Method) -> None:
    """
    The sandbox sends each field that is documented, and the client's object has it.
    """
    box = both()
    async with client(box, rates=()) as flipsnack:
        if action == "collection.create":
            data = await flipsnack.call(action, file=PDF)
        else:
            params: dict[str, Any] = {"collectionHash": box.hashes[0], "includePageStats": True}
            data = await flipsnack.call(action, params)
        if action == "collection.getList":
            data = data["collections"][0]
        answer = await method.ask(flipsnack, box.hashes[0])

    assert method.fields.keys() <= data.keys()
    assert [] == [name for name in method.fields.values() if getattr(answer, name) is None]
    if action == "collection.getStats":
        assert PAGE == data["pages"][0].keys()
        assert PAGE == {field.name for field in attrs.fields(type(answer.pages[0]))} - {"extra"}


async def test_from_and_the_count_are_in_both() -> None:
    """
    A longer list is read by *from*, and its count of all is understood.
    """
    box = Sandbox(collections=70, page_size=50)
    async with client(box) as flipsnack:
        assert 70 == len([collection async for collection in flipsnack.collections.list()])

    assert [{}, {"from": "49"}] == [call.params for call in box.ledger]


async def test_an_address_to_fetch_is_in_both() -> None:
    """
    A document may be named by fileUrl in place of file.
    """
    box = both()
    async with client(box) as flipsnack:
        await flipsnack.collections.create("https://example.com/a.pdf")

    assert {"fileUrl"} == box.ledger[0].params.keys()


@pytest.mark.parametrize("action", sorted(DEPRECATED))
async def test_every_deprecated_method_can_be_called(action: str) -> None:
    """
    What the vendor gave up is reached by its name, and the sandbox knows it if asked to.
    """
    box = Sandbox(deprecated=True)
    async with client(box) as flipsnack:
        name = box.hashes[0]
        found = await flipsnack.call("collection.getCollection", {"collectionHash": name})
        params = {"collectionHash": name}
        if action == "flipbook.delete":
            params["flipbookHash"] = found["items"][0]["itemHash"]
        file = {"flipbook.add": PDF}.get(action, b"\x89PNG\r\n\x1a\n...")
        its_only_item = pytest.raises(errors.APIError, match="code 37")
        with its_only_item if action == "flipbook.delete" else nullcontext():
            await flipsnack.call(action, params, file=file if action in UPLOADS else None)

    assert box.ledger[-1].action == action


def test_every_code_is_in_both() -> None:
    """
    Each documented code has its class in the client and its message in the sandbox.
    """
    assert CODES.keys() - {20} == errors.CODES.keys()
    assert CODES.keys() == MESSAGES.keys()
    assert [] == [code for code, message in CODES.items() if not MESSAGES[code].startswith(message)]


async def code_of(box: Sandbox, action: str, *, method: str = "GET", **own: Any) -> int:
    """Call the sandbox without the client."""
    wrong = own.pop("wrong", {})
    files = own.pop("files", None)
    params = {"action": action, "apiKey": box.api_key, **own}
    text = box.api_secret + "".join(name + params[name] for name in sorted(params))
    params["signature"] = md5(text.encode(), usedforsecurity=False).hexdigest()
    params |= wrong
    async with httpx.AsyncClient(transport=box.transport()) as plain:
        if method == "POST":
            parts = files or [("nothing", (None, ""))]
            answer = await plain.post("https://upload.flipsnack.com/v1", data=params, files=parts)
        else:
            answer = await plain.get("https://api.flipsnack.com/v1", params=params)
    code: int = answer.json()["code"]
    return code


async def upload(box: Sandbox, *documents: bytes) -> int:
    files = [("file", ("a.pdf", document)) for document in documents]
    return await code_of(box, "collection.create", method="POST", files=files)


async def in_maintenance(box: Sandbox) -> int:
    box.fail("*", code=22)
    return await code_of(box, "user.getStats")


async def too_often(box: Sandbox) -> int:
    return [await code_of(box, "user.getStats") for _ in range(2)][-1]


async def last_item(box: Sandbox) -> int:
    async with client(box) as flipsnack:
        found = await flipsnack.call("collection.getCollection", {"collectionHash": box.hashes[0]})
    item = found["items"][0]["itemHash"]
    return await code_of(box, "flipbook.delete", collectionHash=box.hashes[0], flipbookHash=item)


async def in_conversion(box: Sandbox) -> int:
    assert 20 == await upload(box, PDF)
    return await code_of(box, "collection.update", collectionHash=box.hashes[0])


PAGES = PDF + b" /Type /Page /Type /Page"
WAYS: dict[int, tuple[dict[str, Any], Callable[[Sandbox], Awaitable[int]]]] = {
    20: ({}, lambda box: code_of(box, "user.getStats")),
    22: ({}, in_maintenance),
    30: ({}, lambda box: code_of(box, "collection.getStats")),
    31: ({"rates": [Rate(1, per=1.0)]}, too_often),
    32: ({"rates": [Rate(5, per=1.0), Rate(1, per=60.0)]}, too_often),
    33: ({"uploads_left": 0}, lambda box: upload(box, PDF)),
    34: ({"max_file_size": 8}, lambda box: upload(box, PDF)),
    35: ({"max_pages": 1}, lambda box: upload(box, PAGES)),
    36: ({}, lambda box: upload(box, PDF, PDF)),
    37: ({"deprecated": True}, last_item),
    38: ({}, in_conversion),
    40: ({}, lambda box: code_of(box, "user.getStats", method="POST")),
    41: ({}, lambda box: code_of(box, "user.getStats", wrong={"apiKey": "unknown"})),
    42: ({}, lambda box: code_of(box, "user.getEverything")),
    43: ({}, lambda box: code_of(box, "collection.getStats", collectionHash="zzzzzzz9")),
    44: ({}, lambda box: code_of(box, "user.getStats", wrong={"signature": "0" * 32})),
    45: ({}, lambda box: upload(box, b"Dear Sir")),
    46: ({}, lambda box: code_of(box, "collection.getStats", collectionHash="no hash!")),
}


@pytest.mark.parametrize("code", CODES)
async def test_every_code_can_be_had_from_the_sandbox(code: int) -> None:
    """
    The sandbox answers each code to what the documentation says causes it.
    """
    options, way = WAYS[code]

    assert code == await way(Sandbox(**options))


def test_the_wire_names_are_those_of_the_table() -> None:
    """
    What the client renames on reading is what the table says.
    """
    renamed = {wire: name for names in WIRE_NAMES.values() for name, wire in names.items()}
    table = {wire: name for method in METHODS.values() for wire, name in method.fields.items()}

    assert renamed.items() <= {**table, "collectionCount": "count"}.items()
    assert {"format", "callback"} <= RESERVED


# The rows of the project's table of faults that are due so far, in its groups of bodies (B), calls
# and limits (C), parameters and signature (D), uploads (E), packages (F) and harvests (G): those
# that lose or leak something, or hang.
ROWS = {
    *(f"b{n}" for n in (1, 2, 3, 4, 7, 8, 9, 13, 14, 16, 17, 18, 19, 20, 21, 22, 23)),
    *(f"c{n}" for n in (1, 3, 4, 6, 7, 8, 12, 13, 14, 15, 16, 18, 19)),
    *(f"d{n}" for n in (1, 2, 3, 4, 5, 7)),
    *(f"e{n}" for n in (1, 2, 3, 5, 7, 8, 9, 12, 13)),
    *(f"f{n}" for n in (2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)),
    *(f"g{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17)),
}


def test_every_fault_that_is_due_has_its_test() -> None:
    """
    For each row of the table of faults there is a test of its name.
    """
    named = {
        row
        for path in TESTS.rglob("test_*.py")
        for found in re.findall(r"def test_((?:[bcdefg][0-9]+_)+)", path.read_text("utf-8"))
        for row in found.strip("_").split("_")
    }

    assert set() == ROWS - named
