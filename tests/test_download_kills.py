"""
Downloads whose process is killed: the target is whole or absent, and the next run clears up.

FLIPSNACK_TEST_KILLS says how often to kill, for a thorough run.
"""

from __future__ import annotations

import io
import os
import random
import re
import select
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import anyio
import attrs
import httpx
import pytest
from anyio.from_thread import start_blocking_portal

from flipsnack_async import Flipsnack
from flipsnack_async.sandbox import Sandbox

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no kill -9"),
]

Child: TypeAlias = subprocess.Popen[bytes]
KILLS = int(os.environ.get("FLIPSNACK_TEST_KILLS", "6"))
BOOKS = 3
SIZE = 600_000
PART = re.compile(r"\..+\.[0-9a-f]+\.part")

# The first book overwrites its target, the others remove it after a while.
CHILD = """
import os, sys
from pathlib import Path
import anyio
from flipsnack_async import Flipsnack

async def save(flipsnack, name, target, overwrite):
    while True:
        if not overwrite:
            await anyio.sleep(0.05)
            target.unlink(missing_ok=True)
        await flipsnack.collections.save_package(name, target, overwrite=overwrite)

async def main(folder, warm, *names):
    options = {"rates": (), "api_url": os.environ["URL"]}
    async with Flipsnack(os.environ["KEY"], os.environ["SECRET"], **options) as flipsnack:
        await flipsnack.collections.save_package(names[0], warm)
        sys.stdin.readline()
        print("begun", flush=True)
        async with anyio.create_task_group() as tasks:
            for number, name in enumerate(names):
                target = Path(folder, name + ".zip")
                tasks.start_soon(save, flipsnack, name, target, number == 0)

anyio.run(main, *sys.argv[1:])
"""


@pytest.fixture
def anyio_backend() -> str:
    """Real time, since there are sockets; whoever is killed has no backend any more."""
    return "asyncio"


@attrs.frozen
class Served:
    """A sandbox on loopback."""

    box: Sandbox
    url: str
    children: list[Child] = attrs.field(factory=list)

    def client(self) -> Flipsnack:
        box = self.box
        return Flipsnack(box.api_key, box.api_secret, rates=(), api_url=self.url)

    async def packages(self) -> dict[str, bytes]:
        """Fetch each book's package without any help, by the name of its target."""
        found = {}
        async with self.client() as flipsnack, httpx.AsyncClient(trust_env=False) as web:
            for name in self.box.hashes:
                package = await flipsnack.collections.download_html(name)
                found[f"{name}.zip"] = (await web.get(package.resource_url or "")).content
        return found

    def child(self, folder: Path) -> Child:
        """Start a process that will save packages over and over."""
        # A first one elsewhere, after which all it needs is loaded.
        warm = folder.with_name(f"warm-{len(self.children)}.zip")
        secrets = {"URL": self.url, "KEY": self.box.api_key, "SECRET": self.box.api_secret}
        child = subprocess.Popen(  # noqa: S603  our own program
            [sys.executable, "-c", CHILD, str(folder), str(warm), *self.box.hashes],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **secrets},
        )
        self.children.append(child)
        return child


@pytest.fixture
def served() -> Iterator[Served]:
    """Serve a sandbox whose exports take no time, in a loop and thread of its own."""
    box = Sandbox(collections=BOOKS, export_seconds=0, package_size=SIZE, rates=())
    with start_blocking_portal("asyncio") as portal:
        with portal.wrap_async_context_manager(box.serve()) as url:
            served = Served(box, url)
            yield served
            for child in served.children:
                child.kill()
                child.communicate(timeout=10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Be a folder that only packages go to."""
    folder = tmp_path / "packages"
    folder.mkdir()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def parts(folder: Path) -> set[str]:
    return {name for name in os.listdir(folder) if PART.fullmatch(name)}


def let_go(child: Child) -> None:
    """Let a process begin, and return when it does."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"go\n")
    child.stdin.flush()
    readable, _, _ = select.select([child.stdout], [], [], 20)
    if not readable or child.stdout.readline() != b"begun\n":
        child.kill()
        raise AssertionError(child.communicate(timeout=10)[1].decode())


def kill(child: Child) -> None:
    """End a process that must still be at work, by no signal that it could answer."""
    alive = child.poll() is None
    child.kill()
    _, complaint = child.communicate(timeout=10)
    assert alive, complaint.decode()
    assert -signal.SIGKILL == child.returncode


async def test_f14_a_kill_leaves_the_target_whole_or_absent(served: Served, folder: Path) -> None:
    """
    At whatever moment kill -9 strikes, a target has every byte or is not there.

    All else in the folder is parts; the next run completes, and the one after
    an hour sweeps them.
    """
    packages = await served.packages()
    for package in packages.values():
        assert SIZE == len(package)
        assert zipfile.ZipFile(io.BytesIO(package)).testzip() is None
    chance = random.Random(14)  # noqa: S311  no secret
    absent = whole = 0
    following = served.child(folder)
    kills = 0
    # As many as asked for, and on until one struck where it matters.
    while kills < KILLS or (not parts(folder) and kills < 10 * KILLS):
        kills += 1
        # The next one makes itself ready meanwhile.
        child, following = following, served.child(folder)
        let_go(child)
        await anyio.sleep(chance.uniform(0, 0.2))
        kill(child)

        found = contents(folder)
        left = {name: data for name, data in found.items() if not PART.fullmatch(name)}
        assert packages.keys() >= left.keys()
        for name, data in left.items():
            assert packages[name] == data
        whole += len(left)
        absent += len(packages) - len(left)
    young = parts(folder)
    print(f"{kills} kills: targets {whole} times whole, {absent} absent, {len(young)} parts")
    assert young

    # The next run works beside the young ones: somebody might be at work on them.
    async with served.client() as flipsnack:
        for name in served.box.hashes:
            target = folder / f"{name}.zip"
            await flipsnack.collections.save_package(name, target, overwrite=True)
        assert young | packages.keys() == set(os.listdir(folder))

        for part in young:
            os.utime(folder / part, (time.time() - 3700,) * 2)
        for name in served.box.hashes:
            target = folder / f"{name}.zip"
            target.unlink()
            await flipsnack.collections.save_package(name, target)

    assert packages == contents(folder)


async def test_f14_a_killed_export_is_taken_up(served: Served, folder: Path) -> None:
    """
    An export into the folder that a kill left fetches what is missing, and nothing else again.
    """
    packages = await served.packages()
    child = served.child(folder)
    let_go(child)
    for _ in range(500):
        if packages.keys() & set(os.listdir(folder)):
            break
        await anyio.sleep(0.01)
    kill(child)
    missing = packages.keys() - contents(folder).keys()
    calls = len(served.box.ledger)

    async with served.client() as flipsnack:
        async with flipsnack.export_many(list(served.box.hashes), folder) as rows:
            taken = [row async for row in rows]

    assert not [row.error for row in taken if row.error]
    assert packages == {name: data for name, data in contents(folder).items() if name in packages}
    assert missing == {f"{call.params['collectionHash']}.zip" for call in served.box.ledger[calls:]}
