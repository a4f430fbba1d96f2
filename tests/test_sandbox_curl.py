"""A served sandbox is a server: curl, which knows nothing of it, gets along."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import anyio
import pytest
from test_sandbox import signed
from test_sandbox_uploads import pdf

from flipsnack_async.sandbox import Sandbox

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


async def curl(*arguments: str) -> tuple[int, str]:
    """Run curl, and return its exit code and what it printed."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "10"]
    done = await anyio.run_process([*command, *arguments], check=False)
    return done.returncode, done.stdout.decode()


async def envelope(*arguments: str) -> Any:
    code, text = await curl(*arguments)
    assert code == 0
    return json.loads(text)


def fields(form: dict[str, str], option: str) -> list[str]:
    return [word for pair in form.items() for word in (option, "=".join(pair))]


@pytest.mark.parametrize("slash", [True, False])
async def test_a_query(slash: bool) -> None:
    """
    A GET with a query is answered, with a slash at the end of the path and without.
    """
    sandbox = Sandbox()
    query = fields(signed(sandbox, "collection.getList", query="ä & b"), "--data-urlencode")

    async with sandbox.serve() as url:
        answer = await envelope("--get", url if slash else url.rstrip("/"), *query)

    assert answer == {"code": 20, "status": "OK", "data": {"collectionCount": 0, "collections": []}}


async def test_an_upload(tmp_path: Path) -> None:
    """
    A file posted as a form becomes a collection, even one so large that curl asks first.
    """
    sandbox = Sandbox(convert_seconds=0.0)
    file = tmp_path / "spring.pdf"
    file.write_bytes(pdf(3, title="Spring") + bytes(3 * 2**20))
    form = signed(sandbox, "collection.create", description="ä & b")

    async with sandbox.serve() as url:
        expect = ["--header", "Expect: 100-continue"]
        created = await envelope(url, *expect, *fields(form, "-F"), "-F", f"file=@{file}")
        name = created["data"]["collectionHash"]
        query = fields(signed(sandbox, "collection.deleteCollection", collectionHash=name), "-d")
        deleted = await envelope("--get", url, *query)

    assert created["data"]["collectionTitle"] == "Spring"
    assert created["data"]["collectionDescription"] == "ä & b"
    assert deleted == {"code": 20, "status": "OK"}
    (call, _) = sandbox.ledger
    assert hashlib.sha256(file.read_bytes()).hexdigest() == call.sha256
    assert file.stat().st_size == call.size


async def test_two_files(tmp_path: Path) -> None:
    """
    Two files in one form answer 36.
    """
    sandbox = Sandbox()
    file = tmp_path / "spring.pdf"
    file.write_bytes(pdf())
    form = fields(signed(sandbox, "collection.create"), "-F")

    async with sandbox.serve() as url:
        answer = await envelope(url, *form, "-F", f"file=@{file}", "-F", f"file=@{file}")

    assert answer == {"code": 36, "status": "Multiple files upload not allowed"}


@pytest.mark.parametrize(("fault", "exit_code"), [("reset", 56), ("torn", 18)])
async def test_breakdowns(fault: str, exit_code: int) -> None:
    """
    curl sees a reset connection as one, and a torn answer as a partial file.
    """
    sandbox = Sandbox()
    sandbox.fail("*", **{fault: True})  # type: ignore[arg-type]

    async with sandbox.serve() as url:
        code, _ = await curl(url)

    assert exit_code == code
