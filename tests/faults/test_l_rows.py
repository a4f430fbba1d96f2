"""Ways out for a secret that one action alone does not show: tasks under way, tools, terminals."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import faulthandler
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_plus

import anyio
import anyio.to_thread
import attrs
import click
import httpx
import pytest
from canary import (
    KEY,
    LINK,
    SECRET,
    Ears,
    Eyes,
    frames_of_coroutine,
    told_by_error,
    told_by_files,
    told_by_frames,
    told_by_locals,
)
from canary_server import ECHOES, FAULTS, NAME, SILENCE, good, serve
from cutting import CuttingServer, Visit
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from test_l_canaries import (  # fixtures too
    TINY,
    environment,
    hear_everything,  # noqa: F401
    in_haste,  # noqa: F401
    told_by_span,
    trace_everything,  # noqa: F401
    tracing_to,
)

from flipsnack_async import Credentials, Flipsnack, Quota, _retry
from flipsnack_async.archive import Archive
from flipsnack_async.cli import cli, run
from flipsnack_async.sandbox import Sandbox
from flipsnack_async.transport import Connections

pytestmark = pytest.mark.anyio

Call = Callable[[Flipsnack], Coroutine[Any, Any, object]]
OURS: Final = str(Path(__file__).parents[2] / "flipsnack_async")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Real time: real sockets take part here."""
    return str(request.param)


def check(*texts: str | bytes) -> None:
    eyes = Eyes()
    eyes.look("here", texts)
    assert [] == eyes.leaks


def client(url: str, **options: Any) -> Flipsnack:
    options = {"api_url": url, "upload_url": url, "quota": Quota(), "attempts": 1, **options}
    return Flipsnack(KEY, SECRET, **options)


@pytest.fixture
def silent() -> Iterator[CuttingServer]:
    """Serve on loopback, and never answer."""
    server = serve(lambda asked: SILENCE, Eyes())
    yield server
    server.close()


async def asked(silent: CuttingServer) -> None:
    """Wait until the server has a question that it does not answer."""
    assert await anyio.to_thread.run_sync(silent.stalling.wait, 30)


# --- L1, logs


async def test_l1_the_event_loops_own_log_shows_nothing(ears: Ears, anyio_backend: str) -> None:
    """
    In debug mode asyncio names each callback that took long, here every single one.
    """
    server = serve(FAULTS["code 44"], Eyes())
    if anyio_backend == "asyncio":
        asyncio.get_running_loop().set_debug(True)
        asyncio.get_running_loop().slow_callback_duration = 0.0
    try:
        async with client(server.url) as flipsnack:
            with contextlib.suppress(Exception):
                await flipsnack.collections.create(TINY)
    finally:
        server.close()

    heard = ears.take()
    check(*heard)
    assert any("send_request_headers" in line for line in heard)


def test_l1_http_2_whose_library_logs_headers_is_off() -> None:
    """
    HTTP/2 is not offered.
    """
    pool: Any = Connections()._pool

    assert not pool._http2
    assert pool._http1


# --- L3, credentials as values


def test_l3_credentials_show_nothing_of_themselves() -> None:
    """
    Printed, formatted, compared, listed or carried off: credentials tell no one of their text.
    """
    credentials = Credentials(KEY, SECRET)
    check(
        *(str(credentials), repr(credentials), f"{credentials}", f"{credentials!r:>60}"),
        *(str([credentials]), repr({"credentials": credentials}), repr(credentials.fingerprint())),
        *(f"0x{credentials.lasting_fingerprint(b'salt')}", str(credentials)),
        repr(credentials.signed({"action": "a"})),
        repr(credentials.signed_query({"action": "a"})),
        credentials.clean(f"{KEY} {SECRET} {KEY.upper()} {KEY.replace('/', '%2f')}"),
    )
    ways: list[Callable[[Any], object]] = [pickle.dumps, copy.copy, copy.deepcopy, json.dumps]
    ways += [vars, attrs.asdict, iter, list, dict, bytes, len]
    for way in ways:
        with pytest.raises((TypeError, attrs.exceptions.NotAnAttrsClassError)) as refused:
            way(credentials)
        check(*told_by_error(refused.value))


FAILING_TEST: Final = """
import os
import pytest
from flipsnack_async import Credentials, Flipsnack

def credentials():
    names = ("FLIPSNACK_API_KEY", "FLIPSNACK_API_SECRET")
    return Credentials(*(os.environ[name] for name in names))

def test_equal():
    mine, yours = credentials(), credentials()
    assert mine == yours
    assert vars(mine)

def test_signed():
    mine = credentials()
    assert mine.signed_query({"action": "a"}) == mine.signed({"action": "a"})

def test_client():
    flipsnack = Flipsnack.from_env()
    assert flipsnack == flipsnack.with_options(), flipsnack
"""


def test_l3_a_failing_test_shows_nothing(tmp_path: Path) -> None:
    """
    What pytest says of two that differ, with all locals, holds neither key nor signature.
    """
    (tmp_path / "test_failing.py").write_text(FAILING_TEST)
    options = ("-p", "no:cacheprovider", "-p", "no:looptime_plugin", "-vv", "--showlocals", ".")
    told = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "pytest", *options],
        cwd=tmp_path,
        env={**os.environ, **environment("http://127.0.0.1:1/")},
        capture_output=True,
        timeout=100,
        check=False,
    )

    assert b"3 failed" in told.stdout
    check(told.stdout, told.stderr)


# --- L4, frames of what is under way


def tasks_under_way(anyio_backend: str) -> Iterator[Any]:
    """List the coroutine of every task."""
    if anyio_backend == "asyncio":
        yield from (task.get_coro() for task in asyncio.all_tasks())
        return
    import trio

    todo = [trio.lowlevel.current_root_task()]
    while todo:
        task = todo.pop()
        if task is not None:
            yield task.coro
            todo += [child for nursery in task.child_nurseries for child in nursery.child_tasks]


async def retried(flipsnack: Flipsnack) -> object:
    return await flipsnack.with_options(attempts=4).user.get_stats()


UNDER_WAY: Final[dict[str, Call]] = {
    "get_stats": lambda f: f.user.get_stats(),
    "create": lambda f: f.collections.create(TINY),
    "call": lambda f: f.call("flipbook.delete", {"hash": NAME}),
    "export": lambda f: f.collections.export(NAME),
    "retried": retried,
}


@pytest.mark.parametrize("call", UNDER_WAY.values(), ids=UNDER_WAY)
async def test_l4_no_frame_holds_a_secret_while_an_answer_is_awaited(
    call: Call, silent: CuttingServer, anyio_backend: str
) -> None:
    """
    Whoever looks into the suspended tasks of a call, as error trackers do, finds no key in them.
    """
    eyes = Eyes()
    async with client(silent.url) as flipsnack, anyio.create_task_group() as tasks:
        tasks.start_soon(call, flipsnack)
        await asked(silent)
        frames = [f for each in tasks_under_way(anyio_backend) for f in frames_of_coroutine(each)]
        eyes.look("frames", told_by_locals(frames))
        tasks.cancel_scope.cancel()

    assert [] == eyes.leaks
    assert {"handle_async_request"} <= {frame.f_code.co_name for frame in frames}


def is_being_written(anyio_backend: str) -> bool:
    frames = [f for each in tasks_under_way(anyio_backend) for f in frames_of_coroutine(each)]
    return "_send_event" in {frame.f_code.co_name for frame in frames}


async def test_l4_a_call_cancelled_while_it_is_sent_shows_nothing(anyio_backend: str) -> None:
    """
    A cancellation carries no frame with what was being written when it struck.
    """
    server = CuttingServer(Visit.stall)
    caught: list[BaseException] = []
    long = "z" * 8 * 2**20  # more than all buffers hold

    async def call(flipsnack: Flipsnack) -> None:
        try:
            await flipsnack.call("any", {"title": long})
        except anyio.get_cancelled_exc_class() as error:
            caught.append(error)
            raise

    try:
        async with client(server.url, timeout=60) as flipsnack:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call, flipsnack)
                with anyio.fail_after(30):
                    while not is_being_written(anyio_backend):  # noqa: ASYNC110 - nobody tells
                        await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()
        # By hand: patterns would be looked for in megabytes for minutes.
        told = [*told_by_frames(caught[0]), *told_by_error(caught[0])]
    finally:
        server.close()

    assert not [text for text in told if KEY in text or quote_plus(KEY) in text]


async def test_l4_a_dump_of_a_crash_shows_nothing(silent: CuttingServer) -> None:
    """
    What faulthandler writes in the middle of a call names functions only.
    """
    with tempfile.TemporaryFile() as dump:
        async with client(silent.url) as flipsnack:
            with anyio.move_on_after(0.1):
                await flipsnack.user.get_stats()
            faulthandler.dump_traceback(dump, all_threads=True)
        dump.seek(0)
        told = dump.read()

    assert b"test_l4_a_dump" in told
    check(told)


# --- L5, traces


async def test_l5_spans_are_clean_whenever_tracing_began(
    spans: InMemorySpanExporter,
) -> None:
    """
    A client that was made before tracing was switched on is traced as cleanly as one made after.
    """
    HTTPXClientInstrumentor().uninstrument()
    server = serve(good, Eyes())
    try:
        async with client(server.url) as before:
            HTTPXClientInstrumentor().instrument(tracer_provider=tracing_to(spans))
            async with client(server.url) as after:
                for flipsnack in (before, after):
                    await flipsnack.user.get_stats()
                    await flipsnack.collections.create(TINY)
    finally:
        server.close()

    found = spans.get_finished_spans()
    assert 4 == len(found)
    check(*(text for span in found for text in told_by_span(span)))


# --- L6, command lines


def test_l6_no_option_takes_a_secret() -> None:
    """
    Secrets come from the environment: no option or argument is for one, nor reads one from there.
    """
    commands = [cli, *cli.commands.values()]
    groups = [each for each in commands if isinstance(each, click.Group)]
    commands += [each for group in groups for each in group.commands.values()]
    params = [param for command in commands for param in command.params]
    names = [name.lower() for param in params for name in (*param.opts, str(param.envvar))]

    assert len(names) > 50
    words = ("key", "secret", "token", "password", "credential", "debug", "signature")
    assert [] == [name for name in names if any(word in name for word in words)]


@pytest.mark.usefixtures("at_the_terminal")
@pytest.mark.parametrize("command", ["", *cli.commands])
def test_l6_help_shows_nothing(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    """
    No page of help repeats what the environment holds.
    """
    run([*command.split(), "--help"])

    told = capfd.readouterr()
    assert "Usage" in told.out
    check(*told)


@pytest.fixture
def at_the_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put the key into the environment, and let the API be at some address."""

    def go_to(url: str) -> None:
        for name, value in environment(url).items():
            monkeypatch.setenv(name, value)

    go_to("http://127.0.0.1:1/")
    return go_to


COMMANDS: Final = {
    "user-stats": (),
    "list": (),
    "get": (NAME,),
    "stats": (NAME, "--pages"),
    "embed": (NAME,),
    "update": (NAME, "--title", "Spring"),
    "delete": (NAME, "--yes"),
    "call": ("flipbook.delete", f"hash={NAME}"),
    "harvest": (NAME,),
    "series": (NAME, "--start", "2026-01-01", "--end", "2026-01-02", "--out", "stats.db"),
    "upload": ("a.pdf",),
    "package": (NAME, "a.zip", "--within", "0.05", "--every", "0.05"),
    "packages": (NAME, "--into", "packages", "--within", "0.05", "--every", "0.05"),
}
# Those that call nobody.
CALLS_NOBODY: Final = {"rows", "archive", "sandbox"}
SAID: Final = ("good", "code 41", "code 44", "page", "echo in text", "echo in location", "hung up")


def test_l6_no_command_is_left_out() -> None:
    """
    A command that is new is looked at too.
    """
    assert set(cli.commands) == {*COMMANDS} | CALLS_NOBODY


@pytest.mark.parametrize("said", SAID)
def test_l6_no_command_shows_a_secret(
    said: str,
    ears: Ears,
    capfd: pytest.CaptureFixture[str],
    at_the_terminal: Callable[[str], None],
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Neither terminal nor files show a key, however a command ends and however much it is to say.
    """
    monkeypatch.setattr(_retry, "LONGEST_BACKOFF", 0.0)
    monkeypatch.chdir(path.parent)
    Path("a.pdf").write_bytes(TINY)
    eyes = Eyes()
    server = serve({"good": good, **FAULTS, **ECHOES}[said], eyes)
    at_the_terminal(server.url)
    try:
        for command, args in COMMANDS.items():
            for verbosity in ("-v", "-vv"):
                run([command, *args, verbosity, "--rates", "1000/1s"])
                told = capfd.readouterr()
                assert "Traceback" not in told.err
                eyes.look(f"{command} {verbosity}", told)
    finally:
        server.close()

    eyes.look("log", ears.take())
    eyes.look("files", told_by_files(Path.cwd()))
    assert [] == eyes.leaks
    assert eyes.paths > 25
    assert eyes.signatures


@pytest.mark.parametrize("address", ["http://example.com", "s3://bucket/a"])
@pytest.mark.parametrize("command", [["upload"], ["call", "flipbook.add", "--file"]])
def test_l6_a_link_to_a_document_is_not_repeated(
    address: str,
    command: list[str],
    capfd: pytest.CaptureFixture[str],
    at_the_terminal: Callable[[str], None],
) -> None:
    """
    An address that is refused may be a link that needs no key, so it is not repeated.
    """
    assert 2 == run([*command, f"{address}?{LINK}"])

    told = capfd.readouterr()
    assert "https://" in told.err
    check(*told)


def test_l6_a_process_shows_nothing_of_its_key(silent: CuttingServer, tmp_path: Path) -> None:
    """
    Among processes, in what a stopped command says, and on the disk there is no key.
    """
    program = (sys.executable, "-X", "faulthandler", "-m", "flipsnack_async")
    process = subprocess.Popen(  # noqa: S603
        [*program, "user-stats", "-vv"],
        cwd=tmp_path,
        env={**os.environ, **environment(silent.url)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert silent.stalling.wait(60)
    lines = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    process.send_signal(signal.SIGABRT)
    out, err = process.communicate(timeout=60)

    assert b"user-stats" in lines
    assert b"Fatal Python error" in err
    check(lines, out, err, *told_by_files(tmp_path))


# --- L7, files


async def test_l7_files_are_clean_while_a_harvest_runs(silent: CuttingServer, path: Path) -> None:
    """
    Archive, journal and whatever else lies beside it know the key by a salted fingerprint only.
    """
    told = []
    async with client(silent.url) as flipsnack, anyio.create_task_group() as tasks:

        async def harvest() -> None:
            async with Archive.open(path) as archive, archive.harvest(flipsnack, [NAME]) as rows:
                await anext(rows)

        tasks.start_soon(harvest)
        await asked(silent)
        told = [*told_by_files(path.parent)]
        tasks.cancel_scope.cancel()

    assert path.name in told
    check(*told)


# --- L9, sandboxes


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # which is where a sandbox can serve
async def test_l9_a_sandbox_logs_no_signature(ears: Ears) -> None:
    """
    The server of a sandbox writes no address down, and its ledger holds neither key nor signature.
    """
    sandbox = Sandbox()
    mine = (sandbox.api_key, sandbox.api_secret)
    async with sandbox.serve() as url, Flipsnack(*mine, api_url=url, upload_url=url) as flipsnack:
        await flipsnack.user.get_stats()
        await flipsnack.collections.create(TINY)

    told = [*ears.take(), repr(sandbox), repr(sandbox.ledger)]
    check(*told)
    assert not [text for text in told if any(secret in text for secret in mine)]
    assert 2 == len(sandbox.ledger)


def test_l9_a_served_sandbox_says_its_key_once(tmp_path: Path) -> None:
    """
    The command prints what to set in a shell, and logs no call however much it is to say.
    """
    program = (sys.executable, "-m", "flipsnack_async", "sandbox", "--port", "0", "-vv")
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(program, **pipes) as box:  # noqa: S603
        assert box.stdout is not None
        lines = [box.stdout.readline() for _ in range(4)]
        printed = dict(line.removeprefix("export ").strip().split("=", 1) for line in lines)
        url, key = printed["FLIPSNACK_API_URL"], printed["FLIPSNACK_API_KEY"]
        answer = httpx.get(
            url, params={"action": "user.getStats", "apiKey": key, "signature": "0" * 32}
        )
        box.send_signal(signal.SIGINT)
        out, err = box.communicate(timeout=60)

    assert 44 == answer.json()["code"]
    assert "" == out
    assert key not in err
    assert "0" * 32 not in err
