"""Where the documentation is silent or says two things, the sandbox can be told which to do."""

from typing import Any

import httpx
import pytest
from test_sandbox import API, ask, signed
from test_sandbox_uploads import UPLOAD, pdf, upload

from flipsnack_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio


async def test_unknown_hashes() -> None:
    """
    With unknown_hash_code, a hash that is not here answers 46 as one that is none does.
    """
    sandbox = Sandbox(unknown_hash_code=46)

    for name in ("fxh4k89", "NOT A HASH"):
        answer = await ask(sandbox, "collection.getStats", collectionHash=name)
        assert answer == {"code": 46, "status": "Invalid collection hash"}


async def test_names_of_states() -> None:
    """
    An item says how far it is under the name, and in the words, that the sandbox was given.
    """
    sandbox = Sandbox(state_field="itemState", states=("PROCESSING", "DONE", "BROKEN"))
    sandbox.fail_conversion(sandbox.hashes[1])
    created = (await upload(sandbox, pdf()))["data"]
    found = [
        (await ask(sandbox, "collection.getCollection", collectionHash=name))["data"]
        for name in sandbox.hashes[1:3]
    ]

    items = [item for data in (created, *found) for item in data["items"]]
    assert [item["itemState"] for item in items] == ["PROCESSING", "DONE", "BROKEN"]
    assert all("status" not in item for item in items)


async def test_http_statuses() -> None:
    """
    An envelope comes with the HTTP status its code is mapped to, scripted ones unless told.
    """
    sandbox = Sandbox(http_statuses={43: 403, 22: 503})
    sandbox.fail("user.getStats", code=22)
    sandbox.fail("user.getStats", code=22, http_status=500)
    stats = signed(sandbox, "user.getStats")
    unknown = signed(sandbox, "collection.getStats", collectionHash="fxh4k89")

    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        answers = [await client.get(API, params=params) for params in (unknown, *[stats] * 3)]

    assert [403, 503, 500, 200] == [answer.status_code for answer in answers]
    assert [43, 22, 22, 20] == [answer.json()["code"] for answer in answers]


async def test_legacy_counters() -> None:
    """
    Likes and shares are there if asked for, and change no other number.
    """
    old, new = Sandbox(collections=3, legacy_counters=True), Sandbox(collections=3)

    async def stats(sandbox: Sandbox, action: str = "collection.getStats") -> dict[str, int]:
        data = (await ask(sandbox, action, collectionHash=sandbox.hashes[0]))["data"]
        return dict(data)

    collection, user = await stats(old), await stats(old, "user.getStats")
    assert collection.pop("likes") > collection.pop("shares") > 0
    assert user.pop("shares") > 0
    assert (collection, user) == (await stats(new), await stats(new, "user.getStats"))


async def test_numbers_as_text() -> None:
    """
    A stringly sandbox answers collections with every number as text.
    """
    data = (await upload(Sandbox(stringly=True), pdf()))["data"]

    assert (data["collectionWidth"], data["collectionHeight"]) == ("650", "385")


@pytest.mark.parametrize(("strict", "code"), [(True, 40), (False, 20)])
async def test_forms_for_all_actions(strict: bool, code: int) -> None:
    """
    A lenient sandbox takes a form, of either kind, for every action.
    """
    sandbox = Sandbox(strict=strict)
    form = signed(sandbox, "collection.update", collectionHash=sandbox.hashes[0], title="ä & b")

    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        for files in (None, {"nothing": ("a.pdf", b"")}):
            assert code == (await client.post(API, data=form, files=files)).json()["code"]


@pytest.mark.parametrize(
    "own",
    [
        {"playerSettings": '{"autoplay": true}'},
        {"playerSettings[autoplay]": "true", "playerSettings[colour]": "#fff"},
        {"format": "json", "callback": "f"},
    ],
)
async def test_unknown_parameters(own: dict[str, str]) -> None:
    """
    Parameters that are not known are signed under their names as sent, and change nothing.
    """
    sandbox, other = Sandbox(), Sandbox()

    answer = await upload(sandbox, pdf(), **own)

    assert answer == await upload(other, pdf())
    assert own == sandbox.ledger[0].params
    unsigned = signed(sandbox, "collection.create") | own
    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        form = await client.post(UPLOAD, data=unsigned, files={"file": ("a.pdf", pdf())})
    assert form.json()["code"] == 44


@pytest.mark.parametrize(
    ("fault", "body"),
    [
        ({"code": 50, "message": "Out of paper"}, b'{"code":50,"status":"Out of paper"}'),
        # The vendor's own example, with its comma and without a scheme in its address.
        (
            {
                "body": '{"code": 20,"status": "OK","data": '
                '{"status": "COMPLETE","resourceUrl": "resource.url.example",}}'
            },
            b'{"code": 20,"status": "OK","data": '
            b'{"status": "COMPLETE","resourceUrl": "resource.url.example",}}',
        ),
    ],
)
async def test_answers_that_only_a_script_gives(fault: dict[str, Any], body: bytes) -> None:
    """
    Codes that are not documented and bodies that are not well formed leave as scripted.
    """
    sandbox = Sandbox()
    sandbox.fail("collection.downloadHTML", **fault)
    params = signed(sandbox, "collection.downloadHTML", collectionHash=sandbox.hashes[0])

    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        assert body == (await client.get(API, params=params)).content
