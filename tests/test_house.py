"""The house itself: arrows that point one way, names that are exact, nothing forgotten."""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import pickle
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

import flipsnack_async
from flipsnack_async import errors, models
from flipsnack_async.cli import cli

PACKAGE = Path(flipsnack_async.__file__).parent

# What each room may import. Rooms of one's own folder are free.
MAY_IMPORT = {
    "errors": set[str](),
    "models": {"errors"},
    "_actions": {"models", "errors"},
    "_signing": {"errors"},
    "_strict_json": set(),
    "_collection_state": set(),
    "_envelope": {"_collection_state", "_strict_json", "models", "errors"},
    "_buckets": {"errors"},
    "_rivalry": {"_buckets"},
    "_queues": {"_buckets"},
    "_turns": {"_queues"},
    "quota": {"_buckets", "_queues", "_rivalry", "_turns", "errors"},
    "_sharing": {"quota", "errors"},
    "_isolation": {"transport"},
    "_redaction": {"_signing"},
    "transport": {"quota", "_redaction", "_signing", "errors"},
    "_environment": {"quota", "errors"},
    "_gate": {"errors"},
    "_retry": {"errors", "_actions", "_gate"},
    "_blocking": set(),
    "_upload": {"_blocking", "_checks", "errors"},
    "_checks": {"errors"},
    "_polling": {"_checks", "errors"},
    "_export": {"_polling", "models", "errors"},
    "_conversion": {"_polling", "models", "errors"},
    "_listing": {"_actions", "models", "errors"},
    "_reconciliation": {"models", "errors"},
    "_notes": {"_actions", "models", "errors"},
    "_links": set(),
    "_fetching": {"_links", "_redaction", "_signing", "transport"},
    "_zip_layout": set(),
    "_unpack": {"_blocking", "_checks", "_zip_layout", "errors"},
    "_part_file": {"_checks", "errors", "models"},
    "_download": {"_blocking", "_checks", "_links", "_part_file", "_unpack", "errors", "models"},
    "_resources": {
        "_actions",
        "_checks",
        "_conversion",
        "_download",
        "_export",
        "_links",
        "_listing",
        "_reconciliation",
        "_upload",
        "models",
        "errors",
        "quota",
    },
    "_crew": {"errors"},
    "_pace": set(),
    "harvest": {"_crew", "_pace", "models", "errors"},
    "exports": {"_blocking", "_crew", "_download", "_part_file", "_unpack", "models", "errors"},
    "_requests": {"_actions"},
    "_core": {
        "_actions",
        "_checks",
        "_envelope",
        "_fetching",
        "_gate",
        "_isolation",
        "_links",
        "_requests",
        "_retry",
        "_sharing",
        "_signing",
        "_upload",
        "errors",
        "quota",
        "transport",
    },
    "_client": {
        "_actions",
        "_checks",
        "_core",
        "_environment",
        "_links",
        "_notes",
        "_resources",
        "_signing",
        "_upload",
        "errors",
        "exports",
        "harvest",
        "models",
        "quota",
        "transport",
    },
    "_series": {"models"},
    "_archive_rows": {"models", "errors"},
    "_archive_schema": {"errors"},
    "_archive_file": {"_archive_rows", "_archive_schema", "errors"},
    "_archive_job": {
        "_archive_file",
        "_archive_rows",
        "_blocking",
        "_crew",
        "errors",
        "harvest",
    },
    "_archive_series": {
        "_archive_file",
        "_archive_job",
        "_archive_rows",
        "_crew",
        "_blocking",
        "_checks",
        "_pace",
        "_series",
        "errors",
        "harvest",
        "models",
    },
    "archive": {
        "_actions",
        "_archive_file",
        "_archive_job",
        "_archive_rows",
        "_archive_series",
        "_blocking",
        "_checks",
        "_client",
        "_crew",
        "_pace",
        "_series",
        "errors",
        "harvest",
        "models",
    },
    "cli": {"", "archive", "sandbox", "errors", "models", "quota", "transport", "harvest"},
    "sandbox": set[str](),
    "__main__": {"cli"},
}
KNOW_HTTPX = {
    "transport",
    "_isolation",
    "_requests",
    "_links",
    "_fetching",
    "_core",
    "_client",
    "sandbox",
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name, ast.parse(path.read_text("utf-8"))


def imported(module: str, tree: ast.Module) -> Iterator[str]:
    """Yield the absolute names of all that a module imports, wherever in it."""
    here = ["flipsnack_async", *module.split(".")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level] if node.level else []
            stem = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def rooms(module: str, tree: ast.Module) -> Iterator[str]:
    """Yield the rooms of ours that a module imports; "" is the package's own face."""
    for name in imported(module, tree):
        package, _, inside = name.partition(".")
        if package == "flipsnack_async":
            room = inside.partition(".")[0]
            is_room = (PACKAGE / f"{room}.py").exists() or (PACKAGE / room).is_dir()
            yield room if room and is_room else ""


@pytest.mark.parametrize(
    ("module", "tree"), [pytest.param(*m, id=m[0]) for m in modules() if m[0] != "__init__"]
)
def test_imports_point_one_way(module: str, tree: ast.Module) -> None:
    """
    A room imports only what the plan allows, which has no cycle.
    """
    room = module.partition(".")[0]

    assert set() == {r for r in rooms(module, tree) if r != room} - MAY_IMPORT[room]


def test_the_plan_has_no_cycle() -> None:
    """
    Whatever the plan allows, nobody gets back to where it came from.
    """
    left = dict(MAY_IMPORT)
    while ends := [room for room, may in left.items() if not may & left.keys()]:
        for room in ends:
            del left[room]

    assert {} == left


@pytest.mark.parametrize(("module", "tree"), [pytest.param(*m, id=m[0]) for m in modules()])
def test_only_the_doors_know_httpx(module: str, tree: ast.Module) -> None:
    """
    The HTTP library is known to the rooms that send, and to nobody else.
    """
    knows = any(name.partition(".")[0] == "httpx" for name in imported(module, tree))

    assert not knows or module.partition(".")[0] in KNOW_HTTPX


@pytest.mark.parametrize(("module", "tree"), [pytest.param(*m, id=m[0]) for m in modules()])
def test_no_import_hides_from_the_run_time(module: str, tree: ast.Module) -> None:
    """
    What is imported is imported: no TYPE_CHECKING block breaks a cycle.
    """
    assert "TYPE_CHECKING" not in {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}


def test_all_is_exact_and_sorted() -> None:
    """
    The package exports what it says, in order, and every model and error.
    """
    said = flipsnack_async.__all__
    public = {
        name
        for name, value in vars(flipsnack_async).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }

    assert sorted(said) == list(said)
    assert set(said) == public
    assert {*errors.__all__, *models.__all__} <= public


@pytest.mark.parametrize(
    "name",
    [m.name for m in pkgutil.walk_packages(flipsnack_async.__path__, "flipsnack_async.")],
)
def test_every_module_says_what_it_is_about(name: str) -> None:
    """
    A module has a docstring, and where it has an `__all__` it is sorted and true.
    """
    if name.endswith("__main__"):
        return
    module = importlib.import_module(name)
    said = getattr(module, "__all__", [])

    assert module.__doc__
    assert sorted(said) == list(said)
    assert [] == [n for n in said if not hasattr(module, n)]


def test_every_public_thing_has_a_docstring() -> None:
    """
    Whatever a user can import or call is explained.
    """
    silent = []
    for name in flipsnack_async.__all__:
        thing = getattr(flipsnack_async, name)
        silent += [name] * (not thing.__doc__)
        for n, member in vars(thing).items():
            inherited = any(hasattr(parent, n) for parent in thing.__mro__[1:])
            if inspect.isfunction(member) and not n.startswith("_") and not inherited:
                silent += [f"{name}.{n}"] * (not member.__doc__)

    assert [] == silent


# https://developers.flipsnack.com/api-status-codes
DOCUMENTED_CODES = {22, 30, 31, 32, 33, 34, 35, 36, 37, 38, 40, 41, 42, 43, 44, 45, 46}


def test_every_status_code_maps_to_a_class() -> None:
    """
    Each code of the vendor's page, and no other, has its class; success has none.
    """
    assert DOCUMENTED_CODES == errors.CODES.keys()
    assert all(issubclass(c, errors.APIError) for c in errors.CODES.values())


def commands(group: click.Group, path: str = "flipsnack") -> Iterator[tuple[str, click.Command]]:
    yield path, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def test_every_command_has_help() -> None:
    """
    Each command says what it does, and so does each of its options.
    """
    for path, command in commands(cli):
        assert command.help, path
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{path} {parameter.opts}"


NOW = datetime(2026, 1, 31, tzinfo=UTC)
ERRORS = [
    *(c(code, "Forbidden", "collection.getStats") for code, c in errors.CODES.items()),
    errors.InvalidArgumentError("start_date", "write it as YYYY-MM-DD"),
    errors.ConfigurationError("FLIPSNACK_API_KEY", "is not set"),
    errors.ClientClosedError("closed"),
    errors.ConnectionFailedError("no connection"),
    errors.NoAnswerError("no answer"),
    errors.InvalidAnswerError("user.getStats", "torn", field="data.views", http_status=502),
    errors.APIError(48, "Unheard of", "x.y"),
    errors.RateLimitError(429, "Too Many Requests", "user.getStats"),
    errors.CollectionUnavailableError(43, "Forbidden", "collection.getStats", moved_to="new1"),
    errors.UploadOutcomeUnknownError(
        "collection.create",
        "the connection broke",
        body_complete=True,
        size=7,
        sha256="d7a8fbb3",
        title="Spring",
        sent_at=NOW,
        uploads_left_before=9,
    ),
    errors.ConversionFailedError("fxh4k89"),
    errors.ConversionTimeoutError("fxh4k89", 600.0),
    errors.QuotaWaitError(41.5),
    errors.ExportFailedError("fxh4k89"),
    errors.ExportTimeoutError("fxh4k89", 600.0),
    errors.DownloadError("fxh4k89", "is no zip archive"),
    errors.ArchiveError("stats.db", "is in use", "wait"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: f"{type(e).__name__}-{e.args[0]}")
@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy])  # noqa: S301
def test_errors_survive_pickling_and_copying(
    error: errors.FlipsnackError, again: Callable[[errors.FlipsnackError], object]
) -> None:
    """
    An error that crosses a process comes out as it went in, facts and text.
    """
    other = again(error)

    assert type(error) is type(other)
    assert str(error) == str(other)
    assert vars(error) == vars(other)


def test_the_error_table_is_complete() -> None:
    """
    Each error class is among those that are pickled above.
    """
    assert set(errors.__all__) - {"FlipsnackError"} == {type(e).__name__ for e in ERRORS}


def test_a_missing_extra_is_told_with_its_install_line() -> None:
    """
    Where the sandbox's own libraries are not installed, importing it says what to install.
    """
    program = "import sys; sys.modules['starlette'] = None; import flipsnack_async.sandbox"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)  # noqa: S603

    last = ended.stderr.splitlines()[-1]
    assert "needs starlette" in last
    assert last.endswith("pip install 'flipsnack-async[sandbox]'")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (errors.refusal(44, "Invalid signature", "x.y"), "the secret belongs to the key"),
        (
            errors.refusal(43, "Forbidden", "x.y"),
            "a collection gets a new one when it is published",
        ),
        (errors.refusal(38, "Processing", "x.y"), "wait_until_converted"),
        (errors.refusal(32, "Uploads per month", "x.y"), "how many are left"),
        (errors.CollectionUnavailableError(43, "", "x.y", moved_to="new1"), "its hash is new1"),
        (errors.UploadOutcomeUnknownError("collection.create", "x"), "reconcile"),
        (errors.QuotaWaitError(41.0), r"try again in 41\.0 s"),
    ],
    ids=str,
)
def test_messages_tell_what_helps(error: errors.FlipsnackError, remedy: str) -> None:
    """
    Where there is something to do about an error, its message says what.
    """
    assert re.search(remedy, str(error))
