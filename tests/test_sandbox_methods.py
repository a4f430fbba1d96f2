"""The sandbox's methods: collections that are converted, changed, published, embedded, deleted."""

import json
from base64 import b64decode
from html.parser import HTMLParser
from typing import Any

import anyio
import httpx
import pytest
from test_sandbox import API, TODAY, ask, signed
from test_sandbox_faults import DOCUMENTED
from test_sandbox_uploads import JPG, PNG, pdf, upload

from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

ONE_COLLECTION = [
    "collection.getCollection",
    "collection.update",
    "collection.getEmbed",
    "collection.getStats",
    "collection.downloadHTML",
    "collection.deleteCollection",
]
PICTURES = ["collection.setLogo", "collection.setBackgroundImage"]
WITHOUT_PICTURES = ["collection.deleteLogo", "collection.deleteBackgroundImage"]


async def raw(sandbox: Sandbox, action: str, **own: str) -> httpx.Response:
    """Send one well-signed call and return the answer as it came."""
    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        return await client.get(API, params=signed(sandbox, action, **own))


async def data_of(sandbox: Sandbox, action: str, collection: str, **own: str) -> Any:
    return (await ask(sandbox, action, collectionHash=collection, **own))["data"]


async def states(sandbox: Sandbox, collection: str) -> list[str]:
    data = await data_of(sandbox, "collection.getCollection", collection)
    return [item["status"] for item in data["items"]]


async def create(sandbox: Sandbox, **own: str) -> str:
    """Upload a document and return the hash of its collection."""
    name: str = (await upload(sandbox, pdf(), **own))["data"]["collectionHash"]
    return name


def shape(value: Any) -> Any:
    """Leave of an answer its names, in order, and its types."""
    if isinstance(value, dict):
        return [(name, shape(field)) for name, field in value.items()]
    if isinstance(value, list):
        return [shape(value[0])]
    return type(value)


# What the vendor's pages print as answers, a list cut down to its first element.
EXAMPLES = [
    (
        "user.getStats",
        {},
        '{"code": 20, "status": "OK", "data": {"impressions": 2945, "views": 3719,'
        ' "time_spent": 154, "downloads": 28, "api_uploads_left": 53}}',
    ),
    (
        "collection.getStats",
        {"includePageStats": "true"},
        '{"code": 20, "status": "OK", "data": {"impressions": 723, "views": 1240,'
        ' "time_spent": 53, "downloads": 4, "pages":'
        ' [{"page": 1, "time_spent": 127443, "clicks": 392, "views": 4529}]}}',
    ),
    (
        "collection.downloadHTML",
        {},
        '{"code": 20, "status": "OK", "data":'
        ' {"status": "COMPLETE", "resourceUrl": "resource.url.example"}}',
    ),
    ("collection.deleteCollection", {}, '{"code": 20, "status": "OK"}'),
]


@pytest.mark.parametrize(("action", "own", "example"), EXAMPLES, ids=[e[0] for e in EXAMPLES])
async def test_documented_answers(action: str, own: dict[str, str], example: str) -> None:
    """
    Where the vendor's documentation shows an answer, the sandbox's has its names and types.
    """
    sandbox = Sandbox(export_seconds=0.0)

    answer = await raw(sandbox, action, collectionHash=sandbox.hashes[0], **own)

    assert shape(json.loads(example)) == shape(answer.json())
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("action", ONE_COLLECTION)
async def test_actions_on_one_collection(action: str) -> None:
    """
    Each wants a hash (30), in its shape (46), of a collection that is here (43), by GET (40).
    """
    sandbox = Sandbox(rates=())

    assert (await ask(sandbox, action))["code"] == 30
    assert (await ask(sandbox, action, collectionHash="NOT A HASH"))["code"] == 46
    assert (await ask(sandbox, action, collectionHash="fxh4k89"))["code"] == 43
    assert (await upload(sandbox, pdf(), action=action, collectionHash="fxh4k89"))["code"] == 40


async def test_every_code_is_reachable() -> None:
    """
    Every documented code but 22 can be provoked, with its message, without scripting it.
    """
    sandbox = Sandbox(rates=(), deprecated=True, max_pages=1, max_file_size=200)
    busy = Sandbox(rates=[(1, 1.0), (1, 60.0)])
    name = sandbox.hashes[0]
    item = (await data_of(sandbox, "collection.getCollection", name))["items"][0]["itemHash"]
    form = signed(sandbox, "collection.create")
    two_files = [("file", ("a.pdf", b"")), ("file", ("b.pdf", b""))]

    answers = [await ask(busy, "user.getStats") for _ in range(2)]
    await anyio.sleep(1.0)
    answers += [
        await ask(busy, "user.getStats"),
        await ask(sandbox, "collection.getStats"),
        await ask(sandbox, "collection.getStats", collectionHash="?"),
        await ask(sandbox, "collection.getStats", collectionHash="fxh4k89"),
        await ask(sandbox, "collection.fly"),
        await ask(sandbox, "flipbook.delete", collectionHash=name, flipbookHash=item),
        await upload(sandbox, pdf(50)),
        await upload(sandbox, pdf(2)),
        await upload(sandbox, b"no document"),
        await upload(sandbox, pdf(), action="user.getStats"),
        await upload(sandbox, pdf()),
        await ask(sandbox, "collection.update", collectionHash=sandbox.hashes[0]),
    ]
    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        for wrong in ({}, {"apiKey": "stranger"}, {"signature": "bad"}):
            answer = await client.post(API, data=form | wrong, files=two_files)
            answers.append(answer.json())
    sandbox.uploads_left = 0
    answers.append(await upload(sandbox, pdf()))

    met = {answer["code"]: answer["status"] for answer in answers}
    assert DOCUMENTED == met | {22: DOCUMENTED[22]}


async def test_conversion() -> None:
    """
    A new collection is processing for its time, then complete; the made-up ones always were.
    """
    sandbox = Sandbox(convert_seconds=300.0)
    name = await create(sandbox)

    assert await states(sandbox, sandbox.hashes[-1]) == ["complete"]
    await anyio.sleep(299.9)
    assert await states(sandbox, name) == ["processing"]
    await anyio.sleep(0.2)
    assert await states(sandbox, name) == ["complete"]


async def test_a_collection_in_conversion() -> None:
    """
    While a collection is converted, update and downloadHTML answer 38 and all else works.
    """
    sandbox = Sandbox(rates=())
    name = await create(sandbox)

    codes = {
        action: (await ask(sandbox, action, collectionHash=name, title="Tea"))["code"]
        for action in ONE_COLLECTION
    }

    assert {action for action in codes if codes[action] == 38} == {
        "collection.update",
        "collection.downloadHTML",
    }
    assert set(codes.values()) == {20, 38}


async def test_failing_conversions() -> None:
    """
    The next conversions fail as often as told, when their time has come, and so do their packages.
    """
    sandbox = Sandbox(rates=())
    sandbox.fail_conversion()
    sandbox.fail_conversion()
    await upload(sandbox, b"no document")
    first, second, third = [await create(sandbox) for _ in range(3)]

    assert await states(sandbox, first) == ["processing"]
    await anyio.sleep(20.0)
    assert [await states(sandbox, name) for name in (first, second, third)] == [
        ["failed"],
        ["failed"],
        ["complete"],
    ]
    assert await data_of(sandbox, "collection.downloadHTML", first) == {"status": "FAILED"}
    assert await data_of(sandbox, "collection.downloadHTML", third) == {"status": "PROCESSING"}


async def test_failing_one_conversion() -> None:
    """
    A collection that is told to fail does so, and without a name to tell nothing happens.
    """
    sandbox = Sandbox()
    name = await create(sandbox)
    sandbox.fail_conversion(name)

    assert await states(sandbox, name) == ["processing"]
    await anyio.sleep(20.0)
    assert await states(sandbox, name) == ["failed"]
    for told in (sandbox.fail_conversion, sandbox.fail_export, sandbox.remove):
        with pytest.raises(KeyError):
            told("fxh4k89")


async def test_update() -> None:
    """
    An update changes what it mentions and nothing else, and answers as getCollection does.
    """
    sandbox = Sandbox()
    name = sandbox.hashes[0]
    before = await data_of(sandbox, "collection.getCollection", name)

    answer = await data_of(sandbox, "collection.update", name, title="", collectionWidth="800")
    after = await data_of(sandbox, "collection.getCollection", name)

    assert answer == after == before | {"collectionTitle": "", "collectionWidth": 800}


@pytest.mark.parametrize(
    "wrong", [{"collectionStatus": "Public"}, {"collectionWidth": "x"}, {"collectionHeight": "0"}]
)
async def test_updates_that_mean_nothing(wrong: dict[str, str]) -> None:
    """
    A value that is none answers 40, and the rest of the update is not done either.
    """
    sandbox = Sandbox()
    name = sandbox.hashes[0]
    before = await data_of(sandbox, "collection.getCollection", name)

    answer = await ask(sandbox, "collection.update", collectionHash=name, title="Tea", **wrong)

    assert answer == {"code": 40, "status": "Bad request"}
    assert before == await data_of(sandbox, "collection.getCollection", name)


@pytest.mark.parametrize("status", ["public", "unlisted"])
@pytest.mark.parametrize(("keep_old_hashes", "code"), [(True, 20), (False, 43)])
async def test_publishing(status: str, keep_old_hashes: bool, code: int) -> None:
    """
    Published, an editable collection has a new hash in its place, and the old one as told.
    """
    sandbox = Sandbox(rates=(), convert_seconds=0.0, keep_old_hashes=keep_old_hashes)
    draft = await create(sandbox, collectionStatus="editable")
    last = await create(sandbox)
    stats = await data_of(sandbox, "collection.getStats", draft)

    data = await data_of(sandbox, "collection.update", draft, collectionStatus=status)
    final = data["collectionHash"]
    answer = await ask(sandbox, "collection.getCollection", collectionHash=draft)

    assert sandbox.hashes[:2] == (last, final)
    assert len(sandbox.hashes) == 42
    assert draft not in sandbox.hashes
    assert status == data["collectionStatus"]
    assert code == answer["code"]
    assert answer.get("data", data) == data
    assert stats == await data_of(sandbox, "collection.getStats", final)


async def test_hashes_change_on_publishing_only() -> None:
    """
    No other change of status brings a new hash; published anew, all former ones still lead there.
    """
    sandbox = Sandbox(rates=(), convert_seconds=0.0)
    names = [await create(sandbox, collectionStatus="editable")]

    for status in ("editable", "public", "unlisted", "public", "editable", "editable", "unlisted"):
        data = await data_of(sandbox, "collection.update", names[-1], collectionStatus=status)
        names.append(data["collectionHash"])

    assert [names.index(name) for name in names] == [0, 0, 2, 2, 2, 2, 2, 7]
    for name in names:
        found = await data_of(sandbox, "collection.getCollection", name)
        assert names[-1] == found["collectionHash"]
    sandbox.remove(names[0])
    for name in names:
        answer = await ask(sandbox, "collection.getCollection", collectionHash=name)
        assert answer["code"] == 43


async def test_delete() -> None:
    """
    A deleted collection answers 20 without data, then 43, and is gone from list and statistics.
    """
    sandbox = Sandbox(collections=1)
    (name,) = sandbox.hashes

    assert (await raw(sandbox, "collection.deleteCollection", collectionHash=name)).content == (
        b'{"code":20,"status":"OK"}'
    )
    assert (await ask(sandbox, "collection.deleteCollection", collectionHash=name))["code"] == 43
    assert sandbox.hashes == ()
    assert (await ask(sandbox, "collection.getList"))["data"] == {
        "collectionCount": 0,
        "collections": [],
    }
    assert set((await ask(sandbox, "user.getStats"))["data"].values()) == {0, 1000}


async def test_readers_of_a_new_collection() -> None:
    """
    A new collection has statistics of today, and none of yesterday.
    """
    sandbox = Sandbox(today=TODAY)
    name = (await upload(sandbox, pdf(3)))["data"]["collectionHash"]

    stats = await data_of(sandbox, "collection.getStats", name, includePageStats="true")
    today = await data_of(sandbox, "collection.getStats", name, startDate=str(TODAY))
    before = await data_of(sandbox, "collection.getStats", name, endDate="2026-03-30")

    assert [page["page"] for page in stats.pop("pages")] == [1, 2, 3]
    assert stats == today
    assert stats["impressions"] > 0
    assert set(before.values()) == {0}


async def test_new_collections_are_listed_first() -> None:
    """
    The newest collection is the first of the list, in any selection, and sorts by name.
    """
    sandbox = Sandbox()
    old, new = [await create(sandbox, title=title, description="-") for title in ("Beta", "Alpha")]

    async def listed(**own: str) -> list[str]:
        data = (await ask(sandbox, "collection.getList", query="-", **own))["data"]
        return [collection["collectionHash"] for collection in data["collections"]]

    assert [new, old] == list(sandbox.hashes[:2])
    assert [new, old] == await listed()
    assert [new, old] == await listed(orderBy="name", orderMode="asc")
    assert [old, new] == await listed(orderBy="name", orderMode="desc")


class Attributes(HTMLParser):
    """The attributes of the one element of an embed code."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.found: dict[str, str | None] = {}
        self.feed(code)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found.update(attrs)


@pytest.mark.parametrize(
    ("asked", "width", "height", "start"),
    [
        ({}, "650", "385", {}),
        ({"width": "640"}, "640", "385", {}),
        ({"width": "640", "height": "480", "https": "false"}, "640", "480", {}),
        ({"responsive": "true", "width": "640"}, "100%", "100%", {}),
        ({"responsive": "false", "https": "true"}, "650", "385", {}),
        ({"startPage": "7"}, "650", "385", {"startPage": "7"}),
        (
            {"startPage": "7", "startBook": "2"},
            "650",
            "385",
            {"startPage": "7", "startBook": "2"},
        ),
    ],
)
async def test_embed_codes(
    asked: dict[str, str], width: str, height: str, start: dict[str, str]
) -> None:
    """
    An embed code is one iframe, as large as asked, of a player that knows the collection.
    """
    sandbox = Sandbox()
    name = sandbox.hashes[0]

    data = await data_of(sandbox, "collection.getEmbed", name, **asked)
    iframe = Attributes(data["embedCode"])
    url = httpx.URL(iframe.found["src"] or "")
    params = dict(url.params)
    account, _, embedded = b64decode(params.pop("hash")).decode().partition("+")

    assert ["embedCode"] == list(data)
    assert ["iframe"] == iframe.tags
    assert (width, height) == (iframe.found["width"], iframe.found["height"])
    assert (url.scheme, url.host.split(".")[-1]) == ("https", "invalid")
    assert (name, 11, start) == (embedded, len(account), params)


@pytest.mark.parametrize("name", ["width", "height", "startPage", "startBook"])
@pytest.mark.parametrize("text", ["0", "wide", "100%", ""])
async def test_embed_codes_of_no_size(name: str, text: str) -> None:
    """
    Sizes and starting points are numbers from 1 on, or answer 40.
    """
    sandbox = Sandbox()

    answer = await ask(
        sandbox, "collection.getEmbed", collectionHash=sandbox.hashes[0], **{name: text}
    )

    assert answer["code"] == 40


async def test_the_lead_sample() -> None:
    """
    A lead form's sample is some fields with text, or what the sandbox was given.
    """
    given = {"Shoe size": 44, "Hats": []}
    action = "zapier.getZapierLeadFormSample"

    made_up = (await ask(Sandbox(), action))["data"]

    assert made_up
    assert all(isinstance(field, str) for field in made_up.values())
    assert given == (await ask(Sandbox(lead_sample=given), action))["data"]
    assert {} == (await ask(Sandbox(lead_sample={}), action))["data"]


@pytest.mark.parametrize(
    "action", ["flipbook.add", "flipbook.delete", *PICTURES, *WITHOUT_PICTURES]
)
async def test_deprecated_actions_have_a_switch(action: str) -> None:
    """
    What the documentation no longer lists answers 42 unless the sandbox offers it.
    """
    assert (await ask(Sandbox(), action))["code"] == 42
    assert (await upload(Sandbox(), pdf(), action=action))["code"] == 42
    assert (await ask(Sandbox(deprecated=True), action))["code"] in (30, 40)


async def test_items_come_and_go() -> None:
    """
    A flipbook can be added, is converted, and can be deleted unless it is the last (37).
    """
    sandbox = Sandbox(deprecated=True, rates=())
    name = sandbox.hashes[0]

    added = (await upload(sandbox, pdf(), action="flipbook.add", collectionHash=name))["data"]
    first, second = [item["itemHash"] for item in added["items"]]
    assert await states(sandbox, name) == ["complete", "processing"]
    assert sandbox.uploads_left == 1000
    for item, code in ((second, 20), (second, 43), ("", 43), (first, 37)):
        answer = await ask(sandbox, "flipbook.delete", collectionHash=name, flipbookHash=item)
        assert {"code": code, "status": DOCUMENTED[code]} == answer
    assert (await ask(sandbox, "flipbook.delete", collectionHash=name))["code"] == 30
    wrong = await upload(sandbox, b"no document", action="flipbook.add", collectionHash=name)
    assert wrong["code"] == 45


@pytest.mark.parametrize(
    ("set_picture", "delete_picture"), [*zip(PICTURES, WITHOUT_PICTURES, strict=True)]
)
async def test_pictures(set_picture: str, delete_picture: str) -> None:
    """
    Logos and backgrounds are JPG or PNG, and all answer as getCollection does.
    """
    sandbox = Sandbox(deprecated=True, rates=())
    name = sandbox.hashes[0]
    found = await ask(sandbox, "collection.getCollection", collectionHash=name)

    for picture in (JPG, PNG):
        assert found == await upload(sandbox, picture, action=set_picture, collectionHash=name)
    url = await upload(sandbox, action=set_picture, collectionHash=name, fileUrl="https://x.test/")
    assert found == url
    wrong = await upload(sandbox, pdf(), action=set_picture, collectionHash=name)
    assert wrong["code"] == 45
    assert found == await ask(sandbox, delete_picture, collectionHash=name)
