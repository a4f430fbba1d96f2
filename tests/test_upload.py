"""Documents on their way to the vendor: whole, once, from wherever they are."""

from __future__ import annotations

import io
import logging
import os
from hashlib import md5, sha256
from pathlib import Path
from typing import Any, cast

import anyio
import httpx
import pytest
import respx
from hypothesis import given
from hypothesis import strategies as st
from inner import Inner
from scripted import answering, client, done, refused

from flipsnack_async import (
    Collection,
    Effect,
    FileRejectedError,
    Flipsnack,
    InvalidArgumentError,
    MaintenanceError,
    Quota,
    QuotaWaitError,
    Rate,
    UploadOutcomeUnknownError,
    UploadQuotaError,
)
from flipsnack_async import _upload as upload
from flipsnack_async._requests import MultipartBody
from flipsnack_async._upload import Source
from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

PDF = b"%PDF-1.7\n" + bytes(range(256)) * 40 + b"\r\n--boundary?\r\n%%EOF"


@pytest.fixture
def pdf(tmp_path: Path) -> Path:
    path = tmp_path / "spring.pdf"
    path.write_bytes(PDF)
    return path


BEFORE = b"something else"


@pytest.fixture
def middle(tmp_path: Path) -> Path:
    path = tmp_path / "middle.bin"
    path.write_bytes(BEFORE + PDF)
    return path


async def test_a_path_is_uploaded(pdf: Path) -> None:
    """
    A document arrives byte for byte, with its settings, and the new collection comes back.
    """
    box = Sandbox(collections=0)
    async with client(box) as flipsnack:
        created = await flipsnack.collections.create(
            pdf,
            title="Fisch & Chips = 100 % + ü",
            description='the "best"',
            width=800,
            height=600,
            status="unlisted",
            params={"playerSettings[theme]": "dark"},
        )

    call = box.ledger[-1]
    assert (20, len(PDF), sha256(PDF).hexdigest()) == (call.code, call.size, call.sha256)
    assert "dark" == call.params["playerSettings[theme]"]
    assert created.collection_hash in box.hashes
    assert "Fisch & Chips = 100 % + ü" == created.title
    assert 'the "best"' == created.description
    assert (800, 600, "unlisted", "processing") == (
        created.width,
        created.height,
        created.status,
        created.state,
    )


@pytest.mark.parametrize("kind", ["text", "path", "bytes", "file", "file in its middle"])
async def test_a_document_comes_from_anywhere(pdf: Path, middle: Path, kind: str) -> None:
    """
    Paths, bytes and open files are uploaded alike; a file from where it stands, and is left open.
    """
    box = Sandbox()
    path = middle if "middle" in kind else pdf
    async with client(box) as flipsnack, await anyio.open_file(path, "rb") as file:
        file.wrapped.seek(len(BEFORE) if "middle" in kind else 0)
        sources: dict[str, Source] = {"text": str(pdf), "path": pdf, "bytes": PDF}
        await flipsnack.collections.create(sources.get(kind, file))
        assert not file.wrapped.closed

    assert sha256(PDF).hexdigest() == box.ledger[0].sha256


async def test_one_document_may_go_out_twice_at_once(pdf: Path) -> None:
    """
    Two uploads of one path, or of the same bytes, don't get into each other's way.
    """
    box = Sandbox()
    async with client(box) as flipsnack, anyio.create_task_group() as tasks:
        for source in (pdf, pdf, PDF, PDF):
            tasks.start_soon(flipsnack.collections.create, source)

    assert {(20, sha256(PDF).hexdigest())} == {(call.code, call.sha256) for call in box.ledger}
    assert 4 == len(box.ledger)


async def test_an_address_is_sent_as_it_is() -> None:
    """
    What the vendor shall fetch himself is only told to him.
    """
    box = Sandbox()
    address = "https://example.com/a b.pdf?x=1&y=2"
    async with client(box) as flipsnack:
        await flipsnack.collections.create(address)
        await flipsnack.call("collection.create", file=address)

    assert [address] * 2 == [call.params["fileUrl"] for call in box.ledger]


@respx.mock
async def test_what_leaves_the_process(pdf: Path) -> None:
    """
    An upload is one multipart POST of known length, under the vendor's neutral name for files.
    """
    route = respx.post("https://upload.flipsnack.com/v1/").respond(json=done(collectionHash="new1"))
    async with Flipsnack("45FD-267-7SG7832", "123ABCDE-456-7890-FGH") as flipsnack:
        await flipsnack.collections.create(pdf)

    request = route.calls.last.request
    body = request.content
    assert len(body) == int(request.headers["Content-Length"])
    assert request.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert "" == request.url.query.decode()
    head = b'name="file"; filename="document.pdf"\r\nContent-Type: application/pdf\r\n\r\n'
    assert 1 == body.count(head)
    assert PDF == body.partition(head)[2].rpartition(b"\r\n--")[0]
    assert b"spring.pdf" not in body
    # The vendor leaves the file out of what is signed.
    text = "123ABCDE-456-7890-FGHactioncollection.createapiKey45FD-267-7SG7832"
    signature = md5(text.encode(), usedforsecurity=False).hexdigest()
    assert f'name="signature"\r\n\r\n{signature}\r\n'.encode() in body


async def test_e12_a_hostile_file_name_gets_nowhere(tmp_path: Path) -> None:
    """
    Whatever a file is called on disk, its part of the form has the vendor's neutral name.
    """
    hostile = tmp_path / 'a"; name="title\r\nX-Injected: 1 ü.pdf'
    hostile.write_bytes(PDF)
    transport, seen = answering(done(collectionHash="new1"))
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        await flipsnack.collections.create(hostile)

    assert b"Injected" not in seen[0].content
    assert 1 == seen[0].content.count(b"filename=")
    assert b'filename="document.pdf"' in seen[0].content


@pytest.mark.parametrize(
    ("beginning", "name", "media_type"),
    [
        (b"%PDF-1.4", "document.pdf", "application/pdf"),
        (b"junk before\n%PDF-1.4", "document.pdf", "application/pdf"),
        (b"\xff\xd8\xff\xe0", "document.jpg", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n", "document.png", "image/png"),
        (b"Dear Sir", "document", "application/octet-stream"),
    ],
)
async def test_e6_what_is_no_pdf_is_sent_with_a_warning(
    beginning: bytes, name: str, media_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The content tells what a document is; what is no PDF is sent all the same, since the vendor's
    pages differ on what he takes.
    """
    transport, seen = answering(done(collectionHash="new1"))
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        await flipsnack.collections.create(beginning + b"...")

    assert f'filename="{name}"\r\nContent-Type: {media_type}\r\n'.encode() in seen[0].content
    assert ("application/pdf" != media_type) == ("is no PDF" in caplog.text)


async def test_e6_a_large_document_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """
    A document beyond the vendor's published limit is said to be, and left to him.
    """
    path = tmp_path / "big.pdf"
    path.write_bytes(b"%PDF-1.4")
    os.truncate(path, 500 * 10**6 + 1)
    async with upload.opened("source", path) as document:
        assert isinstance(document, upload.OpenDocument)
        upload.warn_of(document)

    assert "larger than 500 MB" in caplog.text


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        ("nowhere/spring.pdf", "there is no such file"),
        (Path("nowhere"), "there is no such file"),
        (os.curdir, "is a directory"),
        (os.devnull, "is no regular file"),
        ("a\0b", "is no path"),
        (b"", "is empty"),
        ("http://example.com/a.pdf", "https://"),
        ("https:///a.pdf", "a host"),
        ("https://exa[mple.com/a.pdf", "a host"),
        ("ftp://example.com/a.pdf", "https://"),
        ("https://example.com/a\nb.pdf", "control character"),
        (17, "give a path, bytes"),
        (io.BytesIO(PDF), "anyio.open_file"),
    ],
    ids=lambda value: str(value).partition(" object")[0],
)
async def test_e6_what_cannot_be_sent_is_found_first(source: Any, remedy: str) -> None:
    """
    A document that isn't there is told by the name of its argument, before a permit is taken.
    """
    transport, seen = answering(done())
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(InvalidArgumentError, match=remedy) as caught:
            await flipsnack.collections.create(source)
        assert 0 == flipsnack.quota.statistics().admitted

    assert caught.value.field in ("source", "fileUrl")
    assert [] == seen


async def test_e6_an_empty_file_and_a_text_file_are_refused(tmp_path: Path) -> None:
    """
    Neither a file with nothing in it nor one that is open for text can be sent.
    """
    empty = tmp_path / "empty.pdf"
    empty.touch()
    transport, seen = answering(done())
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(InvalidArgumentError, match=r"empty\.pdf': is empty"):
            await flipsnack.collections.create(empty)
        async with await anyio.open_file(empty) as text:
            with pytest.raises(InvalidArgumentError, match="binary mode"):
                await flipsnack.collections.create(text)  # type: ignore[arg-type]
        async with await anyio.open_file(empty, "rb") as closed:
            pass
        with pytest.raises(InvalidArgumentError, match="source: give a file"):
            await flipsnack.collections.create(closed)

    assert [] == seen


@pytest.mark.parametrize(
    "settings", [{"width": 0}, {"width": 1.5}, {"height": True}, {"status": 5.0}, {"title": "a\n"}]
)
async def test_settings_are_checked_by_the_names_of_the_arguments(settings: Any) -> None:
    """
    A setting that cannot be sent is told by its name here, and nothing goes out.
    """
    transport, seen = answering(done())
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(InvalidArgumentError) as caught:
            await flipsnack.collections.create(PDF, **settings)

    assert caught.value.field in settings
    assert [] == seen


async def test_progress_is_told_as_the_bytes_go() -> None:
    """
    The callback gets ever more of the document's bytes, at last all of them.
    """
    size = 2 * upload.CHUNK + 5
    transport, _ = answering(done(collectionHash="new1"))
    told: list[int] = []
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        await flipsnack.collections.create(PDF.ljust(size), on_progress=told.append)

    assert [upload.CHUNK, 2 * upload.CHUNK, size] == told


@pytest.mark.parametrize("code", [31, 32, 22, 429])
async def test_a_document_that_was_refused_for_the_moment_is_sent_again(
    code: int, pdf: Path
) -> None:
    """
    Where the vendor himself said not now, the whole document goes out again, from its beginning.
    """
    no = (
        (lambda: httpx.Response(429))
        if code == 429
        else refused(code, "Requests per minute limit exceeded")
    )
    transport, seen = answering(no, no, done(collectionHash="new1"))
    told: list[int] = []
    async with Flipsnack("k", "s", transport=transport, attempts=1) as flipsnack:
        created = await flipsnack.collections.create(pdf, on_progress=told.append)

    assert Collection("new1") == created
    assert [1, 1, 1] == [request.content.count(PDF) for request in seen]
    assert [len(PDF)] * 3 == told


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (33, UploadQuotaError),
        (34, FileRejectedError),
        (35, FileRejectedError),
        (36, FileRejectedError),
        (45, FileRejectedError),
    ],
)
async def test_c8_c9_a_refusal_for_good_is_raised(code: int, kind: type[Exception]) -> None:
    """
    What the vendor does not take, or no more this month, is not sent again.
    """
    transport, seen = answering(refused(code))
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(kind):
            await flipsnack.collections.create(PDF)

    assert 1 == len(seen)


@pytest.mark.parametrize(
    "text", ["Uploads per month limit exceeded", "the UPLOAD limit is reached"]
)
async def test_c7_a_32_that_speaks_of_uploads_ends_it(text: str) -> None:
    """
    Code 32 has two meanings; where its text speaks of uploads the month's are used up.
    """
    transport, seen = answering(refused(32, text))
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(UploadQuotaError) as caught:
            await flipsnack.collections.create(PDF)

    assert 32 == caught.value.code
    assert 1 == len(seen)


@pytest.mark.parametrize("text", ["", "Limite dépassée", "Zu viel"])
@pytest.mark.parametrize("left", [0, 7, None])
async def test_c7_the_count_decides_where_the_text_does_not(text: str, left: int | None) -> None:
    """
    An unreadable 32 costs one call for the count of uploads, not a second sending to find out.
    """
    transport, seen = answering(
        refused(32, text), done(api_uploads_left=left), done(collectionHash="new1")
    )
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        if left:
            assert Collection("new1") == await flipsnack.collections.create(PDF)
        else:
            with pytest.raises(UploadQuotaError if left == 0 else Exception) as caught:
                await flipsnack.collections.create(PDF)
            assert 32 == caught.value.code  # type: ignore[attr-defined]

    assert ["POST", "GET", "POST"][: 3 if left else 2] == [request.method for request in seen]


async def test_a_caller_in_a_hurry_is_told_of_the_refusal() -> None:
    """
    A document is not kept waiting beyond what its caller allows.
    """
    transport, seen = answering(refused(22, "Maintenance mode"))
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(MaintenanceError):
            await flipsnack.with_options(max_wait=10.0).collections.create(PDF)

    assert 1 == len(seen)


async def test_e7_the_disk_is_read_off_the_event_loop(
    pdf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Opening and reading go through the one function that leaves the loop.
    """
    from flipsnack_async import _blocking

    seen: list[str] = []
    inline = _blocking.off_the_loop

    async def noted(function: Any, *args: Any) -> Any:
        seen.append(function.__name__)
        return await inline(function, *args)

    monkeypatch.setattr(_blocking, "off_the_loop", noted)
    transport, _ = answering(done(collectionHash="new1"))
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        await flipsnack.collections.create(pdf)

    assert ["_open", "_next_chunk"] == seen


@given(
    content=st.binary(min_size=1, max_size=2000),
    fields=st.dictionaries(
        st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1),
        st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"])),
        max_size=4,
    ),
)
def test_a_body_is_as_long_as_it_said(content: bytes, fields: dict[str, str]) -> None:
    """
    Whatever the fields and the document, the length is known beforehand and exact.
    """

    async def read() -> bytes:
        document = upload.OpenDocument(io.BytesIO(content), None)
        await document.open()
        body = MultipartBody(fields, document)
        body.on_written = lambda: None
        assert not body.started
        whole = b"".join([chunk async for chunk in body])
        assert body.started
        assert body.complete
        assert body.length == len(whole)
        assert sha256(content).hexdigest() == await document.sha256()
        return whole

    assert content in anyio.run(read)


async def test_two_slow_uploads_leave_a_harvest_its_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Beside two uploads that take longer than itself, a harvest keeps 0.95 of the pace.
    """
    monkeypatch.setattr(upload, "CHUNK", 16)
    box = Sandbox(collections=1300)

    class Slow(httpx.AsyncBaseTransport):
        """Take in a chunk of a document every two seconds, and all else at once."""

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "POST":
                await anyio.sleep(0.1)
                async for _ in cast(httpx.AsyncByteStream, request.stream):
                    await anyio.sleep(2.0)
                return httpx.Response(200, json=done(collectionHash="new1"))
            return await box.transport().handle_async_request(request)

    async def rows(uploads: int) -> int:
        count = 0
        quota = Quota(Rate(5, per=1.0), Rate(60, per=60.0))
        flipsnack = Flipsnack(box.api_key, box.api_secret, transport=Slow(), quota=quota)
        async with flipsnack, anyio.create_task_group() as tasks:
            for _ in range(uploads):
                tasks.start_soon(flipsnack.collections.create, PDF)
            await anyio.sleep(2)
            with anyio.move_on_after(20 * 60):
                async with flipsnack.harvest(box.hashes) as harvest:
                    async for row in harvest:
                        count += row.error is None
            tasks.cancel_scope.cancel()
        await anyio.sleep(120)  # so that the next one starts with a full quota at the server
        return count

    assert await rows(2) >= 0.95 * await rows(0)
    assert {20} == {call.code for call in box.ledger}


async def test_a_file_may_go_to_any_action(pdf: Path) -> None:
    """
    The deprecated actions that upload are reached by their names, on the upload host.
    """
    transport, seen = answering(done(collectionHash="a"))
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        await flipsnack.call(
            "collection.setLogo", {"collectionHash": "a"}, file=pdf, effect=Effect.CONVERGENT
        )
        await flipsnack.call("new.upload", file=pdf)

    assert ["upload.flipsnack.com"] * 2 == [request.url.host for request in seen]


async def test_a_doomed_upload_opens_no_connection(pdf: Path) -> None:
    """
    Where the quota would keep an upload too long, it is told at once and nothing is sent.
    """
    transport, seen = answering(done(collectionHash="new1"))
    async with Flipsnack("k", "s", transport=transport, rates=[Rate(1, per=60.0)]) as flipsnack:
        await flipsnack.collections.create(pdf)
        with pytest.raises(QuotaWaitError):
            await flipsnack.with_options(max_wait=5.0).collections.create(pdf)

    assert 1 == len(seen)


async def test_nothing_of_an_address_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """
    An address may be as good as a password: it is in no error.
    """
    caplog.set_level(logging.DEBUG)
    secret = "https://files.example.com/x.pdf?signed=canary-1234"
    transport, _ = answering(httpx.ReadError("broke"))
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        with pytest.raises(Exception, match="may or may not") as caught:
            await flipsnack.collections.create(secret)
        with pytest.raises(InvalidArgumentError) as bad:
            await flipsnack.collections.create(secret.replace("https", "http"))

    told = [repr(caught.value), str(vars(caught.value)), str(bad.value), caplog.text]
    assert not [text for text in told if "canary" in text]


async def test_a_hash_is_not_lost_for_another_odd_field(caplog: pytest.LogCaptureFixture) -> None:
    """
    Where the vendor says done and gives the hash, the collection is there, odd as the rest may be.
    """
    transport, _ = answering(done(collectionHash="new1", collectionWidth="wide", new=1))
    async with Flipsnack("k", "s", transport=transport) as flipsnack:
        created = await flipsnack.collections.create(PDF)

    assert ("new1", None) == (created.collection_hash, created.width)
    assert {"collectionWidth": "wide", "new": 1}.items() <= created.extra.items()
    assert "collectionWidth" in caplog.text


@pytest.mark.parametrize(("seconds", "answered"), [(50, True), (80, False)])
async def test_the_answer_gets_as_long_again_as_the_document_took(
    monkeypatch: pytest.MonkeyPatch, seconds: float, answered: bool
) -> None:
    """
    What is buffered on a slow way is still arriving when the last byte has left.
    """
    monkeypatch.setattr(upload, "CHUNK", len(PDF) // 10)

    async def slowly(request: httpx.Request) -> httpx.Response:
        async for _ in cast(httpx.AsyncByteStream, request.stream):
            await anyio.sleep(3)
        await anyio.sleep(seconds)
        return httpx.Response(200, json=done(collectionHash="new1"))

    flipsnack = Flipsnack("k", "s", transport=Inner(slowly), timeout=30)
    async with flipsnack:
        if answered:
            await flipsnack.collections.create(PDF)
        else:
            with pytest.raises(UploadOutcomeUnknownError, match="no progress"):
                await flipsnack.collections.create(PDF)
