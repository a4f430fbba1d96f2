"""The sandbox takes uploads as they stream in, counts them, and says no in the right order."""

import tracemalloc
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sandbox import ask, code_of, signed

from flipsnack_async.sandbox import Sandbox
from flipsnack_async.sandbox._documents import DocumentReader
from flipsnack_async.sandbox._forms import reader_of

pytestmark = pytest.mark.anyio

UPLOAD = "https://upload.flipsnack.test/v1/"
JPG = b"\xff\xd8\xff\xe0 a picture"
PNG = b"\x89PNG\r\n\x1a\n a picture"


def pdf(pages: int = 1, *, title: str = "") -> bytes:
    """Make something that passes for a PDF."""
    head = b"%PDF-1.7\n1 0 obj <</Type /Pages>> endobj\n"
    info = b"<</Title (%s)>>\n" % title.encode() if title else b""
    return head + info + b"<</Type /Page /Parent 1 0 R>>\n" * pages + b"%%EOF"


async def upload(
    sandbox: Sandbox,
    file: bytes | None = None,
    *,
    action: str = "collection.create",
    url: str = UPLOAD,
    **own: str,
) -> Any:
    """Send one well-signed upload and return the decoded envelope."""
    files = None if file is None else {"file": ("document.pdf", file, "application/pdf")}
    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        return (await client.post(url, data=signed(sandbox, action, **own), files=files)).json()


async def post_body(sandbox: Sandbox, content_type: str, body: bytes) -> Any:
    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        headers = {b"content-type": content_type.encode("latin-1")}
        return (await client.post(UPLOAD, content=body, headers=headers)).json()


@pytest.mark.parametrize("path", ["v1", "v1/"])
async def test_create(path: str) -> None:
    """
    An upload becomes the first collection of the list, and answers what it is.
    """
    sandbox = Sandbox()
    answer = await upload(sandbox, pdf(), url=f"https://upload.flipsnack.test/{path}", title="Tea")
    data = answer["data"]
    (listed,) = (await ask(sandbox, "collection.getList", limit="1"))["data"]["collections"]

    assert {"code": 20, "status": "OK", "data": data} == answer
    assert {
        "collectionHash": sandbox.hashes[0],
        "collectionTitle": "Tea",
        "collectionDescription": "The first words of Document 1",
        "collectionStatus": "public",
        "collectionWidth": 650,
        "collectionHeight": 385,
    } == listed
    assert listed == {name: data[name] for name in listed}
    assert ["thumb", "items"] == [name for name in data if name not in listed]
    assert ["processing"] == [item["status"] for item in data["items"]]
    assert len(sandbox.hashes) == 41


async def test_parameters_of_create() -> None:
    """
    What an upload asks for, its collection is.
    """
    asked = {
        "title": "Tea & <cake>",
        "description": "ä€😀",
        "collectionWidth": "1",
        "collectionHeight": "2000",
        "collectionStatus": "editable",
    }
    data = (await upload(Sandbox(), pdf(title="Another"), **asked))["data"]

    assert data["collectionTitle"] == "Tea & <cake>"
    assert data["collectionDescription"] == "ä€😀"
    assert (data["collectionWidth"], data["collectionHeight"]) == (1, 2000)
    assert data["collectionStatus"] == "editable"


async def test_titles_of_their_own() -> None:
    """
    A document without a title has that of its PDF, if that is plain text, or a number.
    """
    sandbox = Sandbox(rates=())
    files = [pdf(title="Spring 2026"), pdf(), pdf(title="caf\xe9"), JPG, pdf(title="Tea")]

    titles = [(await upload(sandbox, file))["data"]["collectionTitle"] for file in files]

    assert ["Spring 2026", "Document 2", "Document 3", "Document 4", "Tea"] == titles


@pytest.mark.parametrize(
    "wrong",
    [
        {"collectionStatus": "private"},
        {"collectionStatus": ""},
        {"collectionWidth": "0"},
        {"collectionWidth": "6.5"},
        {"collectionHeight": "-1"},
        {"collectionHeight": "٣"},
        {"collectionHeight": ""},
    ],
)
async def test_values_that_mean_nothing(wrong: dict[str, str]) -> None:
    """
    A status that is none, or a size that is no number from 1 on, answers 40 and makes nothing.
    """
    sandbox = Sandbox()
    before = sandbox.hashes

    assert (await upload(sandbox, pdf(), **wrong))["code"] == 40
    assert (before, 1000) == (sandbox.hashes, sandbox.uploads_left)
    assert (await upload(sandbox, pdf()))["data"]["collectionTitle"] == "Document 1"


async def test_a_file_goes_before_an_address() -> None:
    """
    Of file and fileUrl only the file counts, and one of them there must be.
    """
    sandbox = Sandbox()

    both = await upload(sandbox, pdf(title="Mine"), fileUrl="nonsense")
    assert both["data"]["collectionTitle"] == "Mine"
    assert await upload(sandbox) == {"code": 30, "status": "Missing mandatory parameter"}
    assert (await upload(sandbox, file=None, fileUrl="https://x.test/a.pdf"))["code"] == 20


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://x.test/a.pdf", 20),
        ("HTTPS://x.test", 20),
        ("x.test/a.pdf", 40),
        ("//x.test/a.pdf", 40),
        ("ftp://x.test/a.pdf", 40),
        ("https:///a.pdf", 40),
        ("https://[x", 40),
        ("", 40),
    ],
)
async def test_addresses_of_documents(url: str, code: int) -> None:
    """
    A document is made up for an absolute http or https address; any other answers 40.
    """
    sandbox = Sandbox()

    assert code == (await upload(sandbox, fileUrl=url))["code"]
    assert [(call.size, call.sha256) for call in sandbox.ledger] == [(None, None)]


@pytest.mark.parametrize(
    ("content", "code", "code_for_pdf_only"),
    [
        (pdf(), 20, 20),
        (b"\0" * 1019 + b"%PDF-", 20, 20),
        (b"\0" * 1020 + b"%PDF-", 45, 45),
        (JPG, 20, 45),
        (PNG, 20, 45),
        (b"GIF89a", 45, 45),
        (b"", 45, 45),
    ],
)
async def test_types_are_told_by_content(content: bytes, code: int, code_for_pdf_only: int) -> None:
    """
    PDF, JPG and PNG are taken by what they hold, whatever they are called; else 45.
    """
    assert code == (await upload(Sandbox(), content))["code"]
    assert code_for_pdf_only == (await upload(Sandbox(pdf_only=True), content))["code"]


async def test_sizes_and_pages() -> None:
    """
    A file may be as large, and have as many pages, as its limits say and not more: 34, 35.
    """
    size = len(pdf(7))

    assert (await upload(Sandbox(max_file_size=size), pdf(7)))["code"] == 20
    assert await upload(Sandbox(max_file_size=size - 1), pdf(7)) == {
        "code": 34,
        "status": "File size too large",
    }
    assert (await upload(Sandbox(max_pages=7), pdf(7)))["code"] == 20
    assert await upload(Sandbox(max_pages=6), pdf(7)) == {
        "code": 35,
        "status": "Collection maximum pages number exceeded",
    }


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["file"], 20),
        (["file", "file"], 36),
        (["file", "other"], 36),
        (["other", "file"], 36),
        (["other"], 30),
    ],
)
async def test_several_files(names: list[str], code: int) -> None:
    """
    Two files answer 36, whatever their names; the one that counts is named file.
    """
    sandbox = Sandbox()
    form = signed(sandbox, "collection.create")
    files = [(name, ("a.pdf", pdf())) for name in names]

    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        answer = await client.post(UPLOAD, data=form, files=files)

    assert code == answer.json()["code"]


async def test_uploads_of_a_month() -> None:
    """
    Each upload that succeeds counts, with a failed conversion too, and no other; then 33.
    """
    sandbox = Sandbox(uploads_left=2, rates=())
    collection = sandbox.hashes[0]
    sandbox.fail_conversion()

    async def left() -> int:
        data: dict[str, int] = (await ask(sandbox, "user.getStats"))["data"]
        return data["api_uploads_left"]

    assert (await upload(sandbox, b"no document"))["code"] == 45
    assert (await upload(sandbox, action="collection.create"))["code"] == 30
    assert await left() == 2
    assert (await upload(sandbox, pdf()))["code"] == 20
    assert await left() == 1
    assert (await upload(sandbox, fileUrl="https://x.test/a.pdf"))["code"] == 20
    assert await left() == 0
    assert await upload(sandbox, pdf()) == {"code": 33, "status": "Uploads per month exceeded"}
    await ask(sandbox, "collection.deleteCollection", collectionHash=collection)
    assert await left() == sandbox.uploads_left == 0
    sandbox.uploads_left = 1
    assert (await upload(sandbox, pdf()))["code"] == 20
    assert (await upload(sandbox, pdf()))["code"] == 33


async def test_the_other_code_of_the_quota() -> None:
    """
    With quota_code, uploads over the month answer 32 in the words of the page on limits.
    """
    answer = await upload(Sandbox(uploads_left=0, quota_code=32), pdf())

    assert {"code": 32, "status": "Uploads per month limit exceeded"} == answer


async def test_order_of_checks() -> None:
    """
    Of several things wrong with an upload, the answer names the first in the sandbox's order.
    """
    sandbox = Sandbox(rates=[(4, 1.0)], uploads_left=0, max_file_size=90, max_pages=1)
    form = {"action": "nonsense", "apiKey": sandbox.api_key, "signature": "bad"}
    files = [("file", ("a.pdf", b"no document" * 9)), ("file", ("b.pdf", b""))]

    async def code(*files: Any, form: dict[str, str], method: str = "POST") -> int:
        async with httpx.AsyncClient(transport=sandbox.transport()) as client:
            answer = await client.request(method, UPLOAD, data=form, files=files or None)
        number: int = answer.json()["code"]
        return number

    assert await code(*files, form=form | {"apiKey": "stranger"}) == 41
    assert await code(*files, form=form) == 42
    form["action"] = "collection.create"
    assert await code(*files, form=form, method="GET") == 40
    assert await code(*files, form=form) == 44
    form = signed(sandbox, "collection.create", collectionWidth="wide")
    assert await code(form=form) == 30
    assert await code(*files, form=form) == 31

    sandbox = Sandbox(rates=(), uploads_left=0, max_file_size=90, max_pages=1)
    form = signed(sandbox, "collection.create", collectionWidth="wide")
    assert await code(*files, form=form) == 33
    sandbox.uploads_left = 1
    assert await code(*files, form=form) == 36
    assert await code(files[0], form=form) == 34
    assert await code(("file", ("a.pdf", b"no document")), form=form) == 45
    assert await code(("file", ("a.pdf", b"%PDF-" + b"/Type/Page " * 2)), form=form) == 35
    assert await code(("file", ("a.pdf", b"%PDF-")), form=form) == 40
    assert sandbox.uploads_left == 1


@pytest.mark.parametrize("strict", [True, False])
async def test_uploads_are_posts(strict: bool) -> None:
    """
    An upload by GET answers 40, in a lenient sandbox too.
    """
    sandbox = Sandbox(strict=strict)
    params = signed(sandbox, "collection.create", fileUrl="https://x.test/a.pdf")

    assert await code_of(sandbox, params) == 40


HEAD = b'--b\r\nContent-Disposition: form-data; name="title"\r\n\r\n'
FORM = "multipart/form-data; boundary=b"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (FORM, b""),
        (FORM, b"nonsense"),
        (FORM, HEAD + b"torn"),
        (FORM, HEAD + b"torn\r\n--b"),
        (FORM, b"--b\r\nContent-Disposition: form-data\r\n\r\nnameless\r\n--b--"),
        (FORM, b"--b\r\n\r\nnameless\r\n--b--"),
        (FORM, b"--b\r\n(bad header)\r\n\r\n\r\n--b--"),
        (FORM, HEAD + b"a" * 2**18 + b"\r\n--b--"),
        (FORM, b"--b\r\nX-Padding: " + b"a" * 2**18 + b"\r\n\r\n\r\n--b--"),
        ("multipart/form-data", HEAD + b"whole\r\n--b--"),
        ("multipart/form-data; boundary=" + "b" * 300, HEAD + b"whole\r\n--b--"),
        ("application/x-www-form-urlencoded", b"title=" + b"a" * 2**18),
    ],
    ids=range(12),
)
async def test_forms_that_cannot_be_read(content_type: str, body: bytes) -> None:
    """
    A form that is torn, nameless or too long answers 40 before all else, and counts nowhere.
    """
    sandbox = Sandbox(rates=[(1, 60.0)])

    assert await post_body(sandbox, content_type, body) == {"code": 40, "status": "Bad request"}
    assert [call.code for call in sandbox.ledger] == [40]
    assert (await ask(sandbox, "user.getStats"))["code"] == 20


@pytest.mark.parametrize("content_type", ["", "application/json", "text/plain; charset=ü"])
async def test_bodies_that_are_no_forms(content_type: str) -> None:
    """
    A body of another type holds no parameters.
    """
    body = b'{"apiKey": "a", "signature": "b", "action": "c"}'

    assert (await post_body(Sandbox(), content_type, body))["code"] == 30


async def test_a_field_with_the_name_of_the_file() -> None:
    """
    A field named file is text, unsigned, and no document.
    """
    sandbox = Sandbox()
    form = {**signed(sandbox, "collection.create"), "file": pdf().decode()}

    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        answer = await client.post(UPLOAD, data=form)

    assert answer.json()["code"] == 30


def cut(body: bytes, sizes: list[int]) -> Iterator[bytes]:
    """Cut a body into chunks of those sizes, over and over."""
    start = turn = 0
    while start < len(body):
        size = sizes[turn % len(sizes)]
        yield body[start : start + size]
        start, turn = start + size, turn + 1


BOUNDARY = "x-x"
names = st.text(st.characters(exclude_characters='"\\\r\n\0', exclude_categories=["Cs"]))
contents = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    # What looks like the beginning of a boundary.
    st.text(st.sampled_from("\r\n-x")).filter(lambda text: f"\r\n--{BOUNDARY}" not in text),
)
sizes = st.lists(st.integers(1, 40), min_size=1, max_size=5)


@given(fields=st.lists(st.tuples(names, contents), max_size=5), document=contents, sizes=sizes)
@settings(max_examples=150, derandomize=True, deadline=None)
def test_however_a_form_is_cut(
    fields: list[tuple[str, str]], document: str, sizes: list[int]
) -> None:
    """
    Any fields around any file come out as they went in, wherever the chunks end.
    """
    part = '--{}\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n{}\r\n'
    parts = [part.format(BOUNDARY, name, "", content) for name, content in fields]
    file = part.format(BOUNDARY, "file", '; filename="a.pdf"', document)
    middle = len(parts) // 2
    body = "".join([*parts[:middle], file, *parts[middle:], f"--{BOUNDARY}--\r\n"]).encode()

    reader = reader_of(f"multipart/form-data; boundary={BOUNDARY}")
    for chunk in cut(body, sizes):
        reader.write(chunk)
    form = reader.form()

    assert form.is_readable
    assert fields == list(form.fields)
    assert form.file_count == 1
    assert form.document is not None
    assert sha256(document.encode()).hexdigest() == form.document.sha256
    assert len(document.encode()) == form.document.size


snippets = st.sampled_from(
    [
        b"/Type",
        b"/Page",
        b" ",
        b"\n\r",
        b"/Pages",
        b"s",
        b"/Type /Page",
        b"/Type/Page>>",
        b"/Type/PageLabels",
        b" " * 32,
        b"/Title (",
        b"Tea",
        b")",
    ]
)


def read(body: bytes, sizes: list[int]) -> Any:
    reader = DocumentReader()
    for chunk in cut(b"%PDF-" + body, sizes):
        reader.write(chunk)
    return reader.document()


@given(body=st.lists(snippets).map(b"".join), sizes=sizes)
@settings(max_examples=200, derandomize=True, deadline=None)
def test_however_a_document_is_cut(body: bytes, sizes: list[int]) -> None:
    """
    Its size, digest, type, pages and title are the same, wherever the chunks end.
    """
    assert read(body, [2**16]) == read(body, sizes)


@pytest.mark.parametrize(
    ("body", "pages"),
    [
        (b"", 1),
        (b"/Type /Page/Type /Page", 2),
        (b"/Type/Page/Type\r\n/Page<", 2),
        (b"/Type /Pages /Type /Page_ /Type /PageLabels", 1),
        (b"/Type /Page\n/Type /Pages /Type/Page>>", 2),
    ],
)
def test_pages(body: bytes, pages: int) -> None:
    """
    A PDF has as many pages as it names, not counting what only begins like one, and at least one.
    """
    assert pages == read(body, [3]).page_count


@pytest.mark.parametrize("chunk_size", [2**16, 2**26])
async def test_memory(chunk_size: int) -> None:
    """
    64 MB on their way into the sandbox never take more than a few of its own.
    """
    sandbox = Sandbox()
    parts = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in signed(sandbox, "collection.create").items()
    )
    head = f'{parts}--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    chunk = b"%PDF-" + bytes(chunk_size - 5)

    async def body() -> AsyncIterator[bytes]:
        yield head.encode()
        for _ in range(2**26 // chunk_size):
            yield chunk
        yield b"\r\n--b--"

    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        tracemalloc.start()
        try:
            answer = await client.post(UPLOAD, content=body(), headers={"content-type": FORM})
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert answer.json()["code"] == 20
    assert [2**26] == [call.size for call in sandbox.ledger]
    assert peak < 3 * 2**20


async def test_the_ledger_knows_what_was_uploaded() -> None:
    """
    Size and digest of a document are noted, taken or refused, and neither without one.
    """
    sandbox = Sandbox()
    sandbox.fail("collection.create", code=22)
    for file in (pdf(), b"no document", pdf(3)):
        await upload(sandbox, file, title="Tea")
    await ask(sandbox, "user.getStats")

    assert [
        (22, len(pdf()), sha256(pdf()).hexdigest()),
        (45, 11, sha256(b"no document").hexdigest()),
        (20, len(pdf(3)), sha256(pdf(3)).hexdigest()),
        (20, None, None),
    ] == [(call.code, call.size, call.sha256) for call in sandbox.ledger]
    assert sandbox.ledger[0].params == {"title": "Tea"}


@pytest.mark.parametrize("url", [UPLOAD, "https://upload.flipsnack.test/nowhere"])
@pytest.mark.parametrize("content_type", ["", FORM])
@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
async def test_bodies_are_read_to_their_end(url: str, content_type: str, method: str) -> None:
    """
    Whatever is wrong with a request, its last byte has been taken before the answer is there.
    """
    sent = []

    async def body() -> AsyncIterator[bytes]:
        for number in range(9):
            yield b"nonsense" * 2**13
            sent.append(number)

    async with httpx.AsyncClient(transport=Sandbox().transport()) as client:
        headers = {"content-type": content_type}
        await client.request(method, url, content=body(), headers=headers)

    assert list(range(9)) == sent
