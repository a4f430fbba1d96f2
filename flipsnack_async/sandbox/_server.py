"""The sandbox on a socket of this machine, by uvicorn and hence on asyncio only."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import anyio
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from ._breakdowns import CONNECTION, Connection

_LOOPBACK = "127.0.0.1"


@asynccontextmanager
async def serve(app: ASGIApp, port: int) -> AsyncIterator[str]:
    """Serve *app* inside the block, which gets the API's URL; port 0 means any free one."""
    with socket.create_server((_LOOPBACK, port)) as listener:
        server = _Server(_configured(app))
        async with anyio.create_task_group() as tasks:
            # The listener queues connections already: nobody need wait for uvicorn.
            tasks.start_soon(_run, server, listener)
            try:
                yield f"http://{_LOOPBACK}:{listener.getsockname()[1]}/v1/"
            finally:
                server.should_exit = True


async def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    # Shielded, because uvicorn closes its connections only if it may leave its loop by itself.
    with anyio.CancelScope(shield=True):
        await server.serve(sockets=[listener])


def _configured(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        # URLs hold the key and signatures that never expire.
        access_log=False,
        timeout_graceful_shutdown=1,
    )


class _Protocol(H11Protocol):
    """HTTP/1.1 whose connection the application can end."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        hand = Connection(close=transport.close, reset=partial(_reset, transport))
        # uvicorn copies this into the scope of every request.
        self.app_state = {CONNECTION: hand}


def _reset(transport: asyncio.Transport) -> None:
    # Without lingering a closed socket says RST to its peer, and not a polite FIN.
    now = struct.pack("ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
    # Not aborted, for that would take back what has been written.
    transport.close()


class _Server(uvicorn.Server):
    """A uvicorn that leaves signals to whoever opened the block, and hangs up at its end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Lost answers are still waiting for their clients to go away.
        for connection in self.server_state.connections:
            connection.transport.close()
        await super().shutdown(sockets)
