"""Links to packages: only what leads to a public host by https is followed."""

from __future__ import annotations

import re

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flipsnack_async._links import UnsafeLinkError, checked_link, redirected


@pytest.mark.parametrize(
    ("link", "meant"),
    [
        ("https://cdn.example.com/a.zip?x=1&y=%20", "https://cdn.example.com/a.zip?x=1&y=%20"),
        ("HTTPS://CDN.example.com/a.zip", "https://cdn.example.com/a.zip"),
        ("https://cdn.example.com:443/a.zip", "https://cdn.example.com/a.zip"),
        ("https://cdn.example.com./a.zip", "https://cdn.example.com/a.zip"),
        ("https://b\u00fccher.example/a.zip", "https://xn--bcher-kva.example/a.zip"),
        ("https://cdn\u3002example.com\uff0e/a.zip", "https://cdn.example.com/a.zip"),
        ("https://8.8.8.8/a.zip", "https://8.8.8.8/a.zip"),
        ("https://[2001:4860:4860::8888]/a.zip", "https://[2001:4860:4860::8888]/a.zip"),
        ("https://[64:ff9b::808:808]/a.zip", "https://[64:ff9b::808:808]/a.zip"),
    ],
)
def test_public_links_are_followed(link: str, meant: str) -> None:
    """
    An https address of a public host is taken as its host is named on the network.
    """
    assert meant == str(checked_link(link, from_loopback=False))


@pytest.mark.parametrize("link", ["cdn.example.com/a.zip", "//cdn.example.com/a.zip"])
def test_f5_a_link_without_a_scheme_is_taken_for_https(link: str) -> None:
    """
    A link like the one in the vendor's own example means https.
    """
    assert "https://cdn.example.com/a.zip" == str(checked_link(link, from_loopback=False))


UNSAFE = [
    # F6, F7: other schemes, users, ports, characters
    "http://cdn.example.com/a.zip",
    "ftp://cdn.example.com/a.zip",
    "file:///etc/passwd",
    "data:application/zip;base64,UEsDBA==",
    "javascript:alert(1)",
    "https://user@cdn.example.com/a.zip",
    "https://user:word@cdn.example.com/a.zip",
    "https://cdn.example.com:8080/a.zip",
    "https://cdn.example.com:99999/a.zip",
    "https://cdn.example.com\\@evil.example/a.zip",
    "https://cdn.example.com/a\r\nHost: evil.example",
    "https://cdn.example.com/a b.zip",
    "https:///a.zip",
    "https://",
    "",
    "https://[::1",
    "https://[v1.a]/a.zip",
    "https://cdn.example.com:443[v1.a]/a.zip",
    "https://cdn.example.com[v1.a]/a.zip",
    "https://cdn.example.com%00/a.zip",
    "https://127.0.0.%31/a.zip",
    "https://cdn..example.com/a.zip",
    "https://.example.com/a.zip",
    "https://\u2603.example/a.zip",
    "https://xn--a.example/a.zip",
    f"https://{'a' * 64}.example/a.zip",
    f"https://{'a.' * 130}example/a.zip",
    f"https://cdn.example.com/{'a' * 70_000}",
    # F8: addresses that are not public
    "https://127.0.0.1/a.zip",
    "https://127.1/a.zip",
    "https://2130706433/a.zip",
    "https://0x7f000001/a.zip",
    "https://0177.0.0.1/a.zip",
    "https://10.0.0.1/a.zip",
    "https://192.168.1.1/a.zip",
    "https://172.16.0.1/a.zip",
    "https://169.254.169.254/latest/meta-data",
    "https://100.64.0.1/a.zip",
    "https://0.0.0.0/a.zip",
    "https://224.0.0.1/a.zip",
    "https://[::1]/a.zip",
    "https://[::]/a.zip",
    "https://[fe80::1]/a.zip",
    "https://[fd00::1]/a.zip",
    "https://[::ffff:127.0.0.1]/a.zip",
    "https://[::ffff:10.0.0.1]/a.zip",
    "https://[2002:7f00:1::]/a.zip",
    "https://[::127.0.0.1]/a.zip",
    "https://[::ffff:0:127.0.0.1]/a.zip",
    "https://[64:ff9b::a9fe:a9fe]/a.zip",
    "https://[64:ff9b:1::808:808]/a.zip",
    "https://[fec0::1]/a.zip",
    "https://[ff02::1]/a.zip",
    "https://[2001:4860:4860::8888%25eth0]/a.zip",
    "https://127.0.0\u30021/a.zip",
    "https://169.254.169\uff0e254/a.zip",
    "https://10.0.0\uff611/a.zip",
    "https://localhost/a.zip",
    "https://localhost./a.zip",
    "https://a.localhost/a.zip",
    "https://a.localhost./a.zip",
    "https://intranet./a.zip",
    "https://intranet/a.zip",
    "https://example.com.127/a.zip",
]


@pytest.mark.parametrize("link", UNSAFE, ids=lambda link: ascii(link[:50]))
def test_f6_f7_f8_what_is_not_public_is_refused(link: str) -> None:
    """
    No other scheme, no user, no odd port, and no address inside of somebody's network.
    """
    with pytest.raises(UnsafeLinkError) as caught:
        checked_link(link, from_loopback=False)

    assert not link or link not in str(caught.value)


@pytest.mark.parametrize(
    "link", ["http://127.0.0.1:8712/p/a.zip", "http://localhost/a.zip", "https://[::1]:1/a.zip"]
)
def test_an_api_on_loopback_may_name_loopback(link: str) -> None:
    """
    A sandbox on this machine serves its packages from there, by plain http.
    """
    assert link == str(checked_link(link, from_loopback=True))


@pytest.mark.parametrize(
    "link",
    ["http://cdn.example.com/a", "https://10.0.0.1/", "http://10.0.0.1", "http://127.0.0.1:99999/"],
)
def test_an_api_on_loopback_opens_no_other_door(link: str) -> None:
    """
    What is neither public nor on loopback stays refused.
    """
    with pytest.raises(UnsafeLinkError):
        checked_link(link, from_loopback=True)


@pytest.mark.parametrize(
    ("location", "meant"),
    [
        ("https://other.example.com/b.zip", "https://other.example.com/b.zip"),
        ("/b.zip", "https://cdn.example.com/b.zip"),
        ("//other.example.com/b.zip", "https://other.example.com/b.zip"),
        ("http://other.example.com/b.zip", None),
        ("https://127.0.0.1/b.zip", None),
        ("file:///etc/passwd", None),
        ("https://other.example.com/\x00", None),
        ("https://1.1.1.1:443[v1.x]/", None),
        ("https://127.0.0\u30021/b.zip", None),
    ],
)
def test_f9_a_redirect_is_checked_like_a_link(location: str, meant: str | None) -> None:
    """
    Where a host sends its reader must be as public as the first link.
    """
    link = httpx.URL("https://cdn.example.com/a.zip")
    if meant is None:
        with pytest.raises(UnsafeLinkError):
            redirected(link, location, from_loopback=False)
    else:
        assert meant == str(redirected(link, location, from_loopback=False))


@given(st.text() | st.from_regex(r"https?://[^/]{0,20}(:[0-9]{0,6})?/.*"))
@example("https://127.0.0\u30021/")
def test_f7_any_text_is_a_safe_link_or_none(link: str) -> None:
    """
    Whatever text comes for a link, it is https to what can be a host, or refused in our words.
    """
    try:
        meant = checked_link(link, from_loopback=False)
    except UnsafeLinkError:
        return

    assert ("https", b"", None) == (meant.scheme, meant.userinfo, meant.port)
    assert re.fullmatch(rb"[a-z0-9_-]+([.:]+[a-z0-9_-]+)+", meant.raw_host)
    assert meant.raw_host not in (b"localhost", b"127.0.0.1")
