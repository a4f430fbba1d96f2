"""Clients of a sandbox, and transports that answer by a script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from flipsnack_async import Flipsnack
from flipsnack_async.sandbox import Sandbox


def client(box: Sandbox, **options: Any) -> Flipsnack:
    return Flipsnack(box.api_key, box.api_secret, transport=box.transport(), **options)


def answering(*answers: Any) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """Give each request the next answer, the last one for ever: JSON, a response or an error."""
    seen: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        await request.aread()
        seen.append(request)
        now = answers[min(len(seen), len(answers)) - 1]
        if isinstance(now, Exception):
            raise now
        return now() if callable(now) else httpx.Response(200, json=now)

    return httpx.MockTransport(answer), seen


def page(status: int = 200) -> Callable[[], httpx.Response]:
    return lambda: httpx.Response(status, html="<html>no</html>")


def refused(code: int, message: str = "no") -> dict[str, Any]:
    return {"code": code, "status": message}


def done(**data: Any) -> dict[str, Any]:
    return {"code": 20, "status": "OK", "data": data}
