"""The README: its commands are single lines, and its programs run."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from scripted import client

from flipsnack_async import Flipsnack, UploadOutcomeUnknownError, _client
from flipsnack_async.sandbox import Sandbox

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
COMMANDS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_two_set_up_commands_of_one_line() -> None:
    """
    One line shows the main job, another passes the tests; each starts from a bare Python.
    """
    harvest, test = (command.strip() for command in COMMANDS)

    assert "\n" not in harvest + test
    assert harvest.startswith("python3 -m venv .venv && .venv/bin/pip install")
    assert harvest.endswith(".venv/bin/flipsnack --sandbox harvest --all --pages")
    assert test.startswith("python3 -m venv .venv && .venv/bin/pip install")
    assert test.endswith(".venv/bin/python -m pytest")


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_the_programs_are_python(program: str) -> None:
    """
    What the README shows compiles, and imports names that exist.
    """
    tree = ast.parse(program)
    compile(tree, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert [] == [name.name for name in node.names if not hasattr(module, name.name)]


@pytest.mark.anyio
async def test_the_main_job_as_a_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The ten lines under the commands harvest an account, once a key is in the environment.
    """
    box = Sandbox(collections=3)
    monkeypatch.setenv("FLIPSNACK_API_KEY", box.api_key)
    monkeypatch.setenv("FLIPSNACK_API_SECRET", box.api_secret)
    patch_connections(monkeypatch, box)
    names: dict[str, Any] = {}

    exec(PROGRAMS[0].partition("anyio.run(main)")[0], names)  # noqa: S102  our own README
    await names["main"]()

    assert set(box.hashes) == {line.split()[0] for line in capsys.readouterr().out.splitlines()}


def patch_connections(monkeypatch: pytest.MonkeyPatch, box: Sandbox) -> None:
    """Let a client that was given no transport reach the sandbox."""
    monkeypatch.setattr(_client, "Connections", box.transport)


async def run(part: str, **names: Any) -> None:
    """Run the program that has *part* in it, as if inside an async function."""
    program = next(program for program in PROGRAMS if part in program)
    lines = "\n".join(f"    {line}" for line in program.splitlines())

    exec(f"async def run():\n{lines}", names)  # noqa: S102  our own README
    await names["run"]()


@pytest.mark.anyio
async def test_the_sandbox_in_a_test() -> None:
    """
    The README's example of a test passes.
    """
    await run("box.fail", Flipsnack=Flipsnack)


@pytest.mark.anyio
async def test_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The README's calls work one after the other.
    """
    box = Sandbox(collections=3)
    patch_connections(monkeypatch, box)

    await run("get_embed", Flipsnack=Flipsnack, api_key=box.api_key, api_secret=box.api_secret)

    assert {20} == {call.code for call in box.ledger}


@pytest.mark.anyio
async def test_a_harvest_that_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The README's archive holds what was harvested.
    """
    box = Sandbox(collections=3)
    monkeypatch.chdir(tmp_path)
    async with client(box) as flipsnack:
        await run("Archive.open", flipsnack=flipsnack)

    printed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert sorted(2 * box.hashes) == sorted(printed)


@pytest.mark.anyio
@pytest.mark.parametrize("answered", [True, False])
async def test_an_upload(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    answered: bool,
) -> None:
    """
    The README's upload works, and so does what it does about a lost answer.
    """
    box = Sandbox(collections=3)
    if not answered:
        box.fail("collection.create", torn=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spring.pdf").write_bytes(b"%PDF-1.7")
    async with client(box) as flipsnack:
        await flipsnack.user.get_stats()
        await run(
            "reconcile",
            flipsnack=flipsnack,
            UploadOutcomeUnknownError=UploadOutcomeUnknownError,
        )

    assert ("" if answered else "True") == capsys.readouterr().out[:4].strip()
