"""The command line as a process: on a terminal, in a pipe, interrupted, with parts missing."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE

import anyio.from_thread
import attrs
import pytest

from flipsnack_async import HarvestProgress
from flipsnack_async.cli._looks import look_of_harvest
from flipsnack_async.cli._readable import duration
from flipsnack_async.sandbox import Sandbox

HASHES = Sandbox().hashes
Env = Mapping[str, str]
Process = subprocess.Popen[str]
NOTHING: Env = {}

SANDBOX = ("--sandbox", "--rates", "500/1s,5000/60s")


@pytest.fixture(autouse=True)
def ctrl_c_counts() -> Iterator[None]:
    """
    Let SIGINT reach the programs, also where pytest itself runs in the background.

    A shell without job control starts those with SIGINT ignored, which is
    handed down; only what is caught falls back to the default.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def start(
    *args: str,
    stdin: int = DEVNULL,
    stdout: int = PIPE,
    stderr: int = PIPE,
    env: Env = NOTHING,
) -> Process:
    """Start the program; a stream that is not given is a pipe, or has nothing to read."""
    clean = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "flipsnack_async", *args],
        env={**clean, "TERM": "xterm-256color", **env},
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        text=True,
    )


@attrs.frozen
class Screen:
    """Hold what a terminal was sent, what a pipe got, and the exit code."""

    sent: str
    piped: str
    code: int

    @property
    def text(self) -> str:
        """What is left without colours and movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", self.sent)


class Terminal:
    """Run the program with *streams* on a terminal, and the others in pipes."""

    def __init__(
        self, *args: str, streams: Sequence[str], columns: int = 80, env: Env = NOTHING
    ) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, columns))
        self.process = start(*args, **dict.fromkeys(streams, theirs), env=env)
        os.close(theirs)
        self._sent = b""

    def wait_for(self, text: bytes) -> None:
        """Read until the program has written *text*."""
        while text not in self._sent and self._has_more():
            pass

    def enter(self, text: bytes) -> None:
        os.write(self._ours, text)

    def interrupt(self) -> Screen:
        self.process.send_signal(signal.SIGINT)
        return self.watch()

    def watch(self) -> Screen:
        """Read until the program has ended."""
        while self._has_more():
            pass
        os.close(self._ours)
        out, err = self.process.communicate(timeout=10)
        return Screen(self._sent.decode(), (out or "") + (err or ""), self.process.returncode)

    def _has_more(self) -> bool:
        try:
            chunk = os.read(self._ours, 65536)
        except OSError:  # the way in which Linux says that nobody else has the terminal open
            return False
        self._sent += chunk
        return bool(chunk)


def show(*args: str, columns: int = 80, env: Env = NOTHING) -> Screen:
    return Terminal(*args, streams=["stdout"], columns=columns, env=env).watch()


def progress_of(*args: str) -> Screen:
    return Terminal(*args, streams=["stderr"]).watch()


@contextmanager
def serving(sandbox: Sandbox) -> Iterator[Env]:
    """Serve a sandbox in a thread, and give the environment in which it is found."""
    with anyio.from_thread.start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(sandbox.serve()) as url:
            yield {
                "FLIPSNACK_API_URL": url,
                "FLIPSNACK_UPLOAD_URL": url,
                "FLIPSNACK_API_KEY": sandbox.api_key,
                "FLIPSNACK_API_SECRET": sandbox.api_secret,
            }


# --- tables on stdout


def test_harvest_is_a_table() -> None:
    """
    On a terminal of 80 columns a harvest is a table, failures below it in red, no hash broken.
    """
    screen = show(*SANDBOX, "harvest", *HASHES[:12], "zzzzzzz", "--pages", columns=80)

    lines = screen.text.splitlines()
    assert 3 == screen.code
    assert all(any(h in line for line in lines) for h in [*HASHES[:12], "zzzzzzz"])
    assert max(map(len, lines)) <= 80
    assert re.search(r"hash +impressions +views +time spent +downloads +pages +top page", lines[1])
    assert "\x1b[31mzzzzzzz" in screen.sent
    assert re.fullmatch(r"13 collections, 1 failed, 13 calls, \d\.\d s\n", screen.piped)


def test_colours_can_be_declined() -> None:
    """
    With NO_COLOR nothing is red.
    """
    screen = show(*SANDBOX, "harvest", "zzzzzzz", env={"NO_COLOR": "1"})

    assert "Forbidden" in screen.text
    assert "\x1b[3" not in screen.sent


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (["user-stats"], r"impressions +[\d,]+ *\n.*api uploads left +1,000"),
        (["stats", HASHES[0], "--pages"], rf"{HASHES[0]}.*\n *page +views +clicks +time spent"),
        (["list"], rf"hash +title +status +size.*{HASHES[0]}.*650 x 385"),
        (["get", HASHES[0]], rf"collection hash +{HASHES[0]}.*state +complete.*items +\[{{"),
        (["update", HASHES[0], "--title", "Spring"], r"title +Spring .*\n.*status +public"),
        (["upload", "https://example.com/spring.pdf"], r"title +Document 1 .*state +processing"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_other_results_are_tables(args: list[str], shown: str) -> None:
    """
    Every command's result is a table on a terminal.
    """
    screen = show(*SANDBOX, *args)

    assert (0, "") == (screen.code, screen.piped)
    assert re.search(shown, screen.text, re.DOTALL)


def test_json_on_a_terminal() -> None:
    """
    With --json a terminal gets JSON lines too, and no progress bar in between.
    """
    args = (*SANDBOX, "harvest", *HASHES[:3], "--json")

    screen = Terminal(*args, streams=["stdout", "stderr"], columns=1000).watch()

    *rows, summary = screen.sent.splitlines()
    assert set(HASHES[:3]) == {json.loads(row)["collection_hash"] for row in rows}
    assert summary.startswith("3 collections")


def test_titles_are_only_text() -> None:
    """
    A title can neither drive the terminal nor dress itself up.
    """
    listed = {"collectionHash": "fxh4k89", "collectionTitle": "\x1b[2J\x9b2J[red]:smile:[/red]"}
    sandbox = Sandbox()
    sandbox.fail("*", body=json.dumps({"code": 20, "data": {"collections": [listed]}}))
    with serving(sandbox) as env:
        screen = show("list", "--query", "no such title", env=env)

    assert "[2J 2J[red]:smile:[/red]" in screen.text
    assert "\x1b[2J" not in screen.sent
    assert "\x9b" not in screen.sent


def test_html_is_not_wrapped() -> None:
    """
    HTML is one line as it came, however narrow the terminal.
    """
    screen = show(*SANDBOX, "embed", HASHES[0], columns=60)

    assert re.fullmatch("<iframe src=.*</iframe>\n", screen.text)
    assert "\x1b" not in screen.sent


def test_html_is_only_text() -> None:
    """
    HTML keeps its lines, but cannot drive the terminal.
    """
    sandbox = Sandbox()
    data = {"embedCode": "<p>\n\x1b[2J&amp;[red]</p>\x9b"}
    sandbox.fail("*", body=json.dumps({"code": 20, "data": data}))
    with serving(sandbox) as env:
        screen = show("embed", HASHES[0], env=env)

    assert "<p>\r\n [2J&amp;[red]</p> \r\n" == screen.sent


def test_data_is_laid_out() -> None:
    """
    The data of any action is JSON over several lines.
    """
    screen = show(*SANDBOX, "call", "user.getStats")

    assert screen.text.startswith('{\n  "impressions": ')
    assert 1000 == json.loads(screen.text)["api_uploads_left"]


# --- questions


def test_question_on_a_terminal() -> None:
    """
    On a terminal a deletion is asked for by title, and done after a yes.
    """
    terminal = Terminal(*SANDBOX, "delete", HASHES[0], streams=["stdin", "stdout", "stderr"])
    terminal.wait_for(b"[y/N] ")
    terminal.enter(b"y\n")
    screen = terminal.watch()

    title = f"{HASHES[0]}  Summer report 1"
    assert 0 == screen.code
    assert f"{title}\ndelete 1 collection? [y/N] y\ndeleted {HASHES[0]}\n" == screen.text


def test_interrupted_question() -> None:
    """
    One Ctrl-C is enough of an answer.
    """
    terminal = Terminal(*SANDBOX, "delete", HASHES[0], streams=["stdin", "stderr"])
    terminal.wait_for(b"[y/N] ")
    screen = terminal.interrupt()

    assert (130, "") == (screen.code, screen.piped)


@pytest.mark.parametrize("streams", [["stdout", "stderr"], ["stdin", "stdout"]])
def test_nobody_to_ask(streams: Sequence[str]) -> None:
    """
    Where the question cannot be read, or not be answered, nothing is deleted.
    """
    screen = Terminal(*SANDBOX, "delete", HASHES[0], streams=streams).watch()

    assert 2 == screen.code
    assert "error: there is no terminal to ask on" in screen.text + screen.piped


# --- progress on stderr


def test_progress_ticks() -> None:
    """
    The bar moves by the clock, also while no row comes, and leaves only the summary behind.
    """
    screen = progress_of("--sandbox", "--rates", "1/1s", "harvest", *HASHES[:2])

    assert 2 == len(screen.piped.splitlines())
    moments = re.findall(r"1/2  0 failed  1 call  (\d+\.\d)/min  0 calls, [01] s left", screen.text)
    assert len({*moments}) >= 3
    assert screen.text.splitlines()[-1].startswith("2 collections, 0 failed, 2 calls, 1.")


def test_quiet() -> None:
    """
    With --quiet a terminal sees nothing at all.
    """
    assert "" == progress_of(*SANDBOX, "--quiet", "harvest", HASHES[0]).sent


def test_progress_of_an_upload(document: str) -> None:
    """
    An upload shows what is gone, then its conversion's state and seconds, and leaves nothing.
    """
    args = ("upload", document, "--wait", "--every", "0.3")
    with serving(Sandbox(convert_seconds=0.5)) as env:
        screen = Terminal(*args, streams=["stderr"], columns=60, env=env).watch()

    assert "complete" == json.loads(screen.piped)["state"]
    assert re.search("━ 0 B of 2.0 MB.*━ processing  [01] s", screen.text, re.DOTALL)
    assert screen.sent.endswith("\x1b[2K")


@pytest.mark.parametrize(
    ("total", "left", "words"),
    [
        (None, None, "1,234/?  12 failed  1,300 calls  59.8/min"),
        (
            9000,
            7766.0,
            "1,234/9,000  12 failed  1,300 calls  59.8/min  7,766 calls, 2 h 09 min left",
        ),
    ],
)
def test_progress_in_words(total: int | None, left: float | None, words: str) -> None:
    """
    Next to the bar stands how far it is, what it has cost, its pace, and what is left.
    """
    progress = HarvestProgress(
        done=1234,
        failed=12,
        calls=1300,
        calls_per_minute=59.8,
        total=total,
        calls_left=total and total - 1234,
        seconds_left=left,
    )

    assert words == look_of_harvest(progress).words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (0, "0 s"),
        (59.4, "59 s"),
        (59.5, "1 min 00 s"),
        (3599.4, "59 min 59 s"),
        (3599.5, "1 h 00 min"),
        (86369, "23 h 59 min"),
        (86370, "1 d 00 h"),
        (138109054, "1,598 d 12 h"),
    ],
)
def test_durations(seconds: float | None, words: str) -> None:
    """
    A duration is told in its two largest units, rounded, and never as 60 of the smaller one.
    """
    assert words == duration(seconds)


# --- processes


@pytest.mark.parametrize(
    ("missing", "args", "extra"),
    [
        ("click", ["--help"], "cli"),
        ("rich", ["--help"], "cli"),
        ("starlette", ["--sandbox", "list"], "sandbox"),
        ("uvicorn", ["sandbox", "--port", "0"], "sandbox"),
    ],
)
def test_missing_extra(missing: str, args: list[str], extra: str) -> None:
    """
    Where an extra is missing, one line says how to install it.
    """
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = {args!r}; "
        "from flipsnack_async.__main__ import main; main()"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)  # noqa: S603 - as above

    assert (2, "") == (process.returncode, process.stdout)
    assert re.fullmatch("error: .+\n", process.stderr)
    assert f"pip install 'flipsnack-async[{extra}]'" in process.stderr


@pytest.fixture
def document(tmp_path: Path) -> str:
    file = tmp_path / "spring.pdf"
    file.write_bytes(b"%PDF-1.4".ljust(2_000_000))
    return str(file)


@pytest.fixture
def server() -> Iterator[Process]:
    process = start("sandbox", "--port", "0", "--collections", "3", "--rates", "500/1s")
    yield process
    process.kill()
    process.communicate()


def test_sandbox_serves_until_interrupted(server: Process) -> None:
    """
    The sandbox prints what a shell needs to use it, and ends with 130 on Ctrl-C.
    """
    assert server.stdout
    lines = [server.stdout.readline() for _ in range(5)]
    exports = dict(line.removeprefix("export ").strip().split("=", 1) for line in lines)
    user = start("list", env=exports)
    listed, _ = user.communicate(timeout=10)
    server.send_signal(signal.SIGINT)
    _, said = server.communicate(timeout=10)

    assert (0, 3) == (user.returncode, len(listed.splitlines()))
    assert "500/1s" == exports["FLIPSNACK_RATES"]
    assert 130 == server.returncode
    assert "serving 3 made-up collections until Ctrl-C" == said.strip()


def test_port_in_use() -> None:
    """
    A port that somebody else listens on is one line.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start("sandbox", "--port", str(port))
        out, err = process.communicate(timeout=10)

    assert (1, "") == (process.returncode, out)
    assert f"error: port {port}: Address already in use\n" == err


def test_interrupted_harvest() -> None:
    """
    An interrupted harvest ends with 130, and says how far it came.
    """
    process = start("--sandbox", "harvest", *HASHES)
    assert process.stdout
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)

    assert 130 == process.returncode
    assert re.fullmatch(r"interrupted: \d+ of 40 collections done", said.strip())


def test_interrupted_table() -> None:
    """
    A terminal still gets the table of what has come, and its cursor back.
    """
    terminal = Terminal("--sandbox", "harvest", "--all", streams=["stdout", "stderr"])
    terminal.wait_for(b"/40  0 failed")
    screen = terminal.interrupt()

    assert 130 == screen.code
    assert 1 <= sum(h in screen.text for h in HASHES) < 40
    assert re.search("interrupted: [0-9]+ of 40 collections done\n$", screen.text)
    assert screen.sent.rindex("\x1b[?25h") > screen.sent.rindex("\x1b[?25l")


def test_interrupted_upload(document: str) -> None:
    """
    An upload that is interrupted without an answer may have arrived, and that is said.
    """
    sandbox = Sandbox()
    sandbox.fail("collection.create", lost=True)
    with serving(sandbox) as env:
        terminal = Terminal("upload", document, streams=["stderr"], env=env)
        terminal.wait_for(b"2.0 MB sent  waiting for the answer")
        screen = terminal.interrupt()

    assert (130, "") == (screen.code, screen.piped)
    assert "interrupted: the upload may or may not have arrived" in screen.text


def test_upload_interrupted_before_it_began(document: str) -> None:
    """
    While an upload still waits for quota, an interruption comes in time.
    """
    args = ("--sandbox", "--rates", "1/60s", "upload", document)
    terminal = Terminal(*args, streams=["stderr"])
    terminal.wait_for(b"0 B of 2.0 MB")
    screen = terminal.interrupt()

    assert 130 == screen.code
    assert "interrupted: nothing was uploaded" in screen.text


def test_interrupted_wait(document: str) -> None:
    """
    Whoever stops waiting for a conversion learns what to look for.
    """
    with serving(Sandbox()) as env:
        terminal = Terminal("upload", document, "--wait", streams=["stderr"], env=env)
        terminal.wait_for(b"processing  0 s")
        screen = terminal.interrupt()

    assert 130 == screen.code
    assert re.search(r"interrupted: (\w+) is uploaded; flipsnack get \1 says", screen.text)


def test_reader_that_leaves() -> None:
    """
    A reader that has seen enough, like head, ends the program without a word.
    """
    process = start(*SANDBOX, "harvest", "--all")
    assert process.stdout
    assert process.stderr
    process.stdout.readline()
    process.stdout.close()
    process.wait(timeout=10)

    with process.stderr:
        assert "" == process.stderr.read()


def test_full_disk() -> None:
    """
    Where results cannot be written the program fails in one line.
    """
    with Path("/dev/full").open("w") as disk:
        process = start(*SANDBOX, "list", stdout=disk.fileno())
        _, said = process.communicate(timeout=10)

    assert (1, "error: No space left on device\n") == (process.returncode, said)
