"""What the environment says of proxies, certificates and passwords, A16: it is not listened to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cutting import Visit, answering
from proxy import Serve
from test_a_connecting import CA, encrypted

pytest_plugins = ["instruments"]

PROGRAM = """
import asyncio, sys
from flipsnack_async import Flipsnack, FlipsnackError

async def main():
    url = sys.argv[1]
    async with Flipsnack("CANARYKEY", "secret", api_url=url, upload_url=url) as flipsnack:
        print((await flipsnack.user.get_stats()).views)
        print((await flipsnack.collections.create(b"%PDF-1.7")).collection_hash)

try:
    asyncio.run(main())
except FlipsnackError as error:
    print(error)
"""


def run(url: str, home: Path, **environment: str) -> str:
    """Make two calls in a process with this environment, and return what it said."""
    given = {**os.environ, "HOME": str(home), "NETRC": str(home / ".netrc"), **environment}
    ended = subprocess.run(  # noqa: S603
        [sys.executable, "-c", PROGRAM, url], env=given, capture_output=True, text=True, timeout=60
    )
    assert "" == ended.stderr
    return ended.stdout


def proxies(url: str) -> dict[str, str]:
    names = ("http_proxy", "https_proxy", "all_proxy")
    asked = {name: url.removesuffix("/v1/") for name in names}
    return asked | {name.upper(): value for name, value in asked.items()} | {"NO_PROXY": ""}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Make a home with a password for this machine."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password canary\n")
    netrc.chmod(0o600)
    return tmp_path


def test_a16_proxies_and_passwords_of_the_environment_are_not_used(
    serve: Serve, home: Path
) -> None:
    """
    The key goes to no proxy that only the environment names, and no password to the host.
    """
    heads: list[bytes] = []

    def noting(visit: Visit) -> None:
        visit._buffer = visit._received()
        heads.append(visit._buffer)
        answering()(visit)

    proxy, server = serve(answering()), serve(noting)

    assert "7\nnew1\n" == run(server.url, home, **proxies(proxy.url))
    assert 0 == proxy.connections
    assert ["user.getStats", "collection.create"] == server.actions
    assert b"apiKey=CANARYKEY" in heads[0]
    assert not [head for head in heads if b"authorization" in head.lower()]


def test_a16_encryption_is_not_weakened_by_the_environment(serve: Serve, home: Path) -> None:
    """
    Certificates that the environment names are not trusted, and keys of sessions not written.
    """
    proxy, server = serve(answering()), serve(encrypted(answering()))
    authorities = home / "authorities.pem"
    authorities.write_bytes(CA.cert_pem.bytes())
    keys = home / "keys.log"
    told = run(
        server.url.replace("http:", "https:"),
        home,
        SSL_CERT_FILE=str(authorities),
        SSL_CERT_DIR=str(home),
        REQUESTS_CA_BUNDLE=str(authorities),
        SSLKEYLOGFILE=str(keys),
        **proxies(proxy.url),
    )

    assert "its certificate is not accepted" in told
    assert not keys.exists()
    assert 0 == proxy.connections
    assert 0 == server.heads
