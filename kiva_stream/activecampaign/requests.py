"""How aiohttp writes a request: only while the lease lasts, and once."""

from __future__ import annotations

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection

from kiva_stream.errors import HeldError
from kiva_stream.ports.state import FencingCheck


def fenced(fencing: FencingCheck) -> type[ClientRequest]:
    """Return requests that check the lease in the step in which they are written.

    aiohttp writes a request without a body in `send`, one with a body in `write_bytes`, in a task of its own.
    `ClientSession.request` raises what the check raises, and nothing was written.
    """

    class FencedRequest(ClientRequest):
        async def send(self, conn: Connection) -> ClientResponse:
            fencing.require()
            return await super().send(conn)

        async def write_bytes(
            self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
        ) -> None:
            try:
                fencing.require()
            except HeldError as error:
                if conn.protocol is not None:
                    conn.protocol.set_exception(error)  # ends the wait for the answer, and the connection
            else:
                await super().write_bytes(writer, conn, content_length)

    return FencedRequest


class ConnectionLostError(aiohttp.ClientError):
    """The connection ended before the answer came."""


async def without_aiohttp_retry(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Keep aiohttp from repeating a GET or PUT by itself, without a slot of the budget."""
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise ConnectionLostError(str(error)) from error
