"""The sandbox keeps the contract: signature, order of checks, rates, statistics, lists, exports."""

from datetime import date, timedelta
from hashlib import md5
from typing import Any

import anyio
import attrs
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flipsnack_async import sandbox as sandbox_package
from flipsnack_async.sandbox import Sandbox
from flipsnack_async.sandbox._signature import signature_of

API = "https://api.flipsnack.test/v1/"


def digest(params: dict[str, str], secret: str) -> str:
    text = secret + "".join(name + params[name] for name in sorted(params))
    return md5(text.encode(), usedforsecurity=False).hexdigest()


def signed(sandbox: Sandbox, action: str, **own: str) -> dict[str, str]:
    params = {"action": action, "apiKey": sandbox.api_key, **own}
    return {**params, "signature": digest(params, sandbox.api_secret)}


async def ask(sandbox: Sandbox, action: str, **own: str) -> Any:
    """Send one well-signed call and return the decoded envelope."""
    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        return (await client.get(API, params=signed(sandbox, action, **own))).json()


async def code_of(sandbox: Sandbox, params: Any, *, method: str = "GET") -> int:
    """Send *params* as they are and return the envelope's code."""
    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        response = await client.request(method, API, params=params)
    assert response.status_code == 200
    code: int = response.json()["code"]
    return code


def test_exports() -> None:
    """
    The package exports what it documents, sorted.
    """
    assert sandbox_package.__all__ == ["Sandbox", "SandboxCall", "SandboxDownload"]


@pytest.mark.parametrize("sign", [signature_of, digest])
def test_the_documented_signature(sign: Any) -> None:
    """
    The vendor's published example has the published signature, here and in these tests.
    """
    params = {
        "action": "collection.getCollection",
        "collectionHash": "fxh4k89",
        "apiKey": "45FD-267-7SG7832",
    }

    assert sign(params, "123ABCDE-456-7890-FGH") == "26e781d3d1751d82ec284acf4a019def"


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["+ &=%25", "ä€😀", ""])
async def test_signature_covers_the_decoded_text(text: str) -> None:
    """
    Values are signed as they read after decoding, and unknown parameters are signed too.
    """
    assert (await ask(Sandbox(), "user.getStats", unheard=text))["code"] == 20


@pytest.mark.anyio
async def test_what_passes_for_a_signature() -> None:
    """
    Upper-case hex digits do, and a file is not signed; one wrong digit does not.
    """
    sandbox = Sandbox()
    params = signed(sandbox, "user.getStats")
    upper = params["signature"].upper()
    wrong = ("1" if upper[0] == "0" else "0") + upper[1:]

    assert await code_of(sandbox, params | {"signature": upper}) == 20
    assert await code_of(sandbox, params | {"file": "unsigned.pdf"}) == 20
    assert await code_of(sandbox, params | {"signature": wrong}) == 44
    assert await code_of(sandbox, params | {"signature": "é"}) == 44


@pytest.mark.anyio
async def test_credentials_are_random_and_recognisable() -> None:
    """
    Every sandbox has its own key and secret, which say where they belong and stay out of repr.
    """
    one, other = Sandbox(), Sandbox()

    assert one.api_key.startswith("sandbox-key-")
    assert one.api_secret.startswith("sandbox-secret-")
    assert {one.api_key, one.api_secret}.isdisjoint({other.api_key, other.api_secret})
    assert "sandbox-" not in repr(one)
    assert await code_of(one, signed(other, "user.getStats")) == 41


@pytest.mark.anyio
@pytest.mark.parametrize("missing", ["apiKey", "signature", "action"])
async def test_common_parameters_are_mandatory(missing: str) -> None:
    """
    A call without one of the three common parameters answers 30 before all else.
    """
    sandbox = Sandbox(rates=[(0, 1.0)])
    params = signed(sandbox, "nonsense")
    del params[missing]

    assert await code_of(sandbox, params) == 30


@pytest.mark.anyio
async def test_order_of_checks() -> None:
    """
    Of several things wrong with a call, the answer names the first in the sandbox's own order.
    """
    sandbox = Sandbox(rates=[(3, 1.0)])
    bad = {"action": "nonsense", "apiKey": sandbox.api_key, "signature": "bad"}

    assert await code_of(sandbox, bad | {"apiKey": "stranger"}, method="POST") == 41
    assert await code_of(sandbox, bad, method="POST") == 42
    bad["action"] = "collection.getStats"
    assert await code_of(sandbox, bad, method="POST") == 40
    assert await code_of(sandbox, bad) == 44
    assert await code_of(sandbox, bad) == 31


@pytest.mark.anyio
async def test_collection_hashes() -> None:
    """
    No hash answers 30, a malformed one 46, an unknown or removed one 43.
    """
    sandbox = Sandbox(rates=())
    removed, kept = sandbox.hashes[:2]
    sandbox.remove(removed)

    for action in ("collection.getStats", "collection.downloadHTML"):
        assert await ask(sandbox, action) == {"code": 30, "status": "Missing mandatory parameter"}
        for name, code in {"NOT A HASH": 46, "": 46, "fxh4k89": 43, removed: 43, kept: 20}.items():
            assert code == (await ask(sandbox, action, collectionHash=name))["code"]
    assert removed not in sandbox.hashes


@pytest.mark.anyio
async def test_a_repeated_parameter_is_a_bad_request() -> None:
    """
    A name that comes twice answers 40, even where both values agree.
    """
    sandbox = Sandbox()
    pairs = list(signed(sandbox, "user.getStats").items())

    assert await code_of(sandbox, [*pairs, pairs[0]]) == 40


@pytest.mark.anyio
@pytest.mark.parametrize(("strict", "code"), [(True, 40), (False, 20)])
@pytest.mark.parametrize("files", [None, {"file": ("a.pdf", b"%PDF\r\n\r\n--", "application/pdf")}])
async def test_posted_forms(strict: bool, code: int, files: Any) -> None:
    """
    A form is read whatever its encoding, and refused unless the sandbox is lenient.
    """
    sandbox = Sandbox(strict=strict)

    async with httpx.AsyncClient(transport=sandbox.transport()) as client:
        form = signed(sandbox, "user.getStats", title="ä & b")
        answer = await client.post(API, data=form, files=files)

    assert code == answer.json()["code"]
    assert sandbox.ledger[0].params == {"title": "ä & b"}


@attrs.frozen
class Rate:
    limit: int
    per: float


@pytest.mark.anyio
@pytest.mark.parametrize("rates", [((5, 1.0), (60, 60.0)), (Rate(60, 60.0), Rate(5, 1.0))])
async def test_sliding_windows_are_exact_to_the_call(rates: Any) -> None:
    """
    No second holds a sixth call (31) and no minute a 61st (32), wherever they begin.
    """
    sandbox = Sandbox(rates=rates)
    await anyio.sleep(0.5)

    codes = []
    for _ in range(13):
        codes += [(await ask(sandbox, "user.getStats"))["code"] for _ in range(6)]
        await anyio.sleep(1.0)
    # 13 s gone; the first call leaves the minute 60 s after it came.
    await anyio.sleep(46.75)
    codes.append((await ask(sandbox, "user.getStats"))["code"])
    await anyio.sleep(0.25)
    codes += [(await ask(sandbox, "user.getStats"))["code"] for _ in range(6)]

    assert codes == [20, 20, 20, 20, 20, 31] * 12 + [32] * 6 + [32] + [20] * 5 + [31]


@pytest.mark.anyio
@pytest.mark.parametrize(("window", "code"), [("fixed", 20), ("sliding", 31)])
async def test_fixed_windows_follow_the_clock(window: Any, code: int) -> None:
    """
    Fixed windows let ten calls through around the turn of a second, sliding ones do not.
    """
    sandbox = Sandbox(window=window)
    await anyio.sleep(0.9 - anyio.current_time() % 1.0)

    before = [(await ask(sandbox, "user.getStats"))["code"] for _ in range(6)]
    await anyio.sleep(0.2)
    after = [(await ask(sandbox, "user.getStats"))["code"] for _ in range(6)]

    assert before == [20, 20, 20, 20, 20, 31]
    assert [code] * 5 + [31] == after


@pytest.mark.anyio
@pytest.mark.parametrize(("count_refused", "code"), [(True, 31), (False, 20)])
async def test_refused_calls_fill_the_window_if_told_so(count_refused: bool, code: int) -> None:
    """
    With count_refused, whoever keeps asking keeps being refused.
    """
    sandbox = Sandbox(rates=[(1, 1.0)], count_refused=count_refused)

    codes = []
    for _ in range(3):
        codes.append((await ask(sandbox, "user.getStats"))["code"])
        await anyio.sleep(0.5)

    assert [20, 31, code] == codes


TODAY = date(2026, 3, 31)
days = st.integers(0, 2500).map(lambda back: TODAY - timedelta(days=back))


@given(number=st.integers(0, 9), cuts=st.lists(days, min_size=3, max_size=3).map(sorted))
@settings(max_examples=30, derandomize=True, deadline=None)
def test_a_range_is_the_sum_of_its_parts(number: int, cuts: list[date]) -> None:
    """
    Wherever a range is cut in two, the counters of the parts add up to the whole, page by page.
    """
    first, cut, last = cuts
    sandbox = Sandbox(collections=10, rates=(), today=TODAY)

    async def counters(start: date, end: date) -> list[dict[str, int]]:
        answer = await ask(
            sandbox,
            "collection.getStats",
            collectionHash=sandbox.hashes[number],
            startDate=str(start),
            endDate=str(end),
            includePageStats="true",
        )
        pages: list[dict[str, int]] = answer["data"].pop("pages")
        return [answer["data"], *({**page, "page": 0} for page in pages)]

    async def compare() -> None:
        whole = await counters(first, last)
        left, right = await counters(first, cut), await counters(cut + timedelta(days=1), last)
        for total, one, other in zip(whole, left, right, strict=True):
            assert {name: one[name] + other[name] for name in one} == total
            assert all(count >= 0 for count in one.values())

    anyio.run(compare)


@pytest.mark.anyio
async def test_statistics() -> None:
    """
    The same seed, collection and day have the same numbers, whatever day it is today.
    """
    one, later = Sandbox(today=TODAY), Sandbox(today=TODAY + timedelta(days=7))
    name = one.hashes[0]

    async def stats(sandbox: Sandbox, **dates: str) -> dict[str, int]:
        answer = await ask(sandbox, "collection.getStats", collectionHash=name, **dates)
        data: dict[str, int] = answer["data"]
        return data

    day = await stats(one, startDate="2026-03-02", endDate="2026-03-02")
    assert list(day) == ["impressions", "views", "time_spent", "downloads"]
    assert day["impressions"] > 0
    assert day == await stats(later, startDate="2026-03-02", endDate="2026-03-02")
    assert await stats(one) == await stats(later, startDate="2019-01-01", endDate=str(TODAY))
    assert set((await stats(one, startDate="2026-04-01")).values()) == {0}
    assert set((await stats(one, endDate="2019-12-31")).values()) == {0}


@pytest.mark.anyio
async def test_user_statistics() -> None:
    """
    The account's statistics are the sum of its collections', of those that are still there.
    """
    sandbox = Sandbox(collections=3, rates=())
    sandbox.remove(sandbox.hashes[0])

    parts = [
        (await ask(sandbox, "collection.getStats", collectionHash=name))["data"]
        for name in sandbox.hashes
    ]
    whole = (await ask(sandbox, "user.getStats"))["data"]

    assert whole.pop("api_uploads_left") == 1000
    assert whole == {counter: sum(part[counter] for part in parts) for counter in parts[0]}


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["", "yesterday", "20260302", "2026-W10-1", "2026-02-30"])
async def test_dates_that_are_none(text: str) -> None:
    """
    A date that is not written YYYY-MM-DD answers 40.
    """
    sandbox = Sandbox()

    answer = await ask(
        sandbox, "collection.getStats", collectionHash=sandbox.hashes[0], endDate=text
    )

    assert answer["code"] == 40


@pytest.mark.anyio
async def test_listing() -> None:
    """
    Pages follow each other from index 0, and every range parameter bounds them.
    """
    sandbox = Sandbox(collections=120, rates=())

    async def listed(**own: str) -> list[str]:
        data = (await ask(sandbox, "collection.getList", **own))["data"]
        assert data["collectionCount"] == 120
        return [collection["collectionHash"] for collection in data["collections"]]

    hashes = list(sandbox.hashes)
    assert hashes[:50] == await listed()
    assert hashes[100:] == await listed(**{"from": "100"})
    assert hashes[3:8] == await listed(**{"from": "3", "to": "7"})
    assert hashes[3:10] == await listed(**{"from": "3", "limit": "7"})
    assert hashes[:9] == await listed(count="9")
    assert await listed(**{"from": "120"}) == []
    assert (await ask(sandbox, "collection.getList", **{"from": "-1"}))["code"] == 40


@pytest.mark.anyio
async def test_listing_selects_and_sorts() -> None:
    """
    Status and query select, orderBy=name and orderMode sort, and the count is of what matches.
    """
    sandbox = Sandbox(collections=200, rates=(), page_size=200)

    async def listed(**own: str) -> list[dict[str, Any]]:
        data = (await ask(sandbox, "collection.getList", **own))["data"]
        assert len(data["collections"]) == data["collectionCount"]
        found: list[dict[str, Any]] = data["collections"]
        return found

    everything = await listed()
    by_status = {s: await listed(collectionStatus=s) for s in ("public", "unlisted", "editable")}
    assert sum(map(len, by_status.values())) == 200
    assert len(by_status["public"]) > len(by_status["unlisted"]) > len(by_status["editable"]) > 0
    spring = [c for c in everything if "Spring" in c["collectionTitle"]]
    assert spring == await listed(query="sPRING")
    names = [c["collectionTitle"].casefold() for c in await listed(orderBy="name")]
    assert sorted(names) == names
    assert everything[::-1] == await listed(orderMode="desc")
