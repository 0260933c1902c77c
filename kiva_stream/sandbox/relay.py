"""A relay before a PostgreSQL server, whose connections can become silent, as by a firewall that forgot them.

A silent connection stays open, and nothing more is passed on in it. New connections are served.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import anyio
import anyio.abc

SOCKET = ".s.PGSQL.5432"
ENDS = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


class Relay:
    """A relay that listens on a socket in a folder of its own."""

    def __init__(self, target: str, folder: Path) -> None:
        self.served = 0  # connections so far
        self._target = target
        self._folder = folder
        self._answers: int | None = None  # of the next connection before it becomes silent
        self._open: set[_Passage] = set()

    @classmethod
    @asynccontextmanager
    async def to(cls, dsn: str) -> AsyncIterator[Relay]:
        """Relay to the server of a DSN while the block lasts."""
        with tempfile.TemporaryDirectory(prefix="relay.") as name:
            relay, folder = cls(dsn, Path(name)), Path(name)
            async with (
                await anyio.create_unix_listener(folder / SOCKET) as listener,
                anyio.create_task_group() as group,
            ):
                group.start_soon(listener.serve, relay.pass_on)
                yield relay
                group.cancel_scope.cancel()

    @property
    def dsn(self) -> str:
        """The DSN of the same database by way of the relay."""
        parts = urlsplit(self._target)
        login = parts.netloc.rpartition("@")[0] or "postgres"
        host = quote(str(self._folder), safe="")
        return parts._replace(netloc=f"{login}@", query=f"host={host}&port=5432").geturl()

    def silence(self) -> int:
        """Make all connections silent that are open; return how many these are."""
        silenced = [passage for passage in self._open if passage.silence()]
        return len(silenced)

    def silence_next(self, answers: int) -> None:
        """Have the next connection, and it alone, become silent after some answers of the server."""
        self._answers = answers

    async def pass_on(self, client: anyio.abc.ByteStream) -> None:
        """Serve a connection until one of its ends closes it."""
        self.served += 1
        async with client:
            try:
                server = await self._connect()
            except OSError:
                return
            passage = _Passage(client, server, self._answers)
            self._answers = None
            self._open.add(passage)
            try:
                await passage.serve()
            finally:
                self._open.discard(passage)

    async def _connect(self) -> anyio.abc.ByteStream:
        parts = urlsplit(self._target)
        query = parse_qs(parts.query)
        port = int(query.get("port", [str(parts.port or 5432)])[0])
        host = query.get("host", [parts.hostname or "127.0.0.1"])[0]
        if host.startswith("/"):
            return await anyio.connect_unix(f"{host}/.s.PGSQL.{port}")
        return await anyio.connect_tcp(host, port)


class _Passage:
    """A connection by way of the relay."""

    def __init__(
        self, client: anyio.abc.ByteStream, server: anyio.abc.ByteStream, answers: int | None
    ) -> None:
        self._client = client
        self._server = server
        self._answers_left = answers
        self._is_silent = False

    def silence(self) -> bool:
        """Pass nothing more on; return whether it was not silent before."""
        was_silent, self._is_silent = self._is_silent, True
        return not was_silent

    async def serve(self) -> None:
        """Pass on what either end sends, until one of them closes the connection."""
        async with self._server, anyio.create_task_group() as group:
            group.start_soon(self._pass_requests, group.cancel_scope)
            await self._pass_on(self._server, self._client)
            group.cancel_scope.cancel()

    async def _pass_requests(self, whole: anyio.CancelScope) -> None:
        """Pass on what the client sends; cancel the whole passage when that ends.

        The server's end is closed only when nothing is read from it any more: anyio closes the socket of a
        Unix stream that is being read before it leaves the selector, which then takes the next connection of
        the same number for this one.
        """
        await self._pass_on(self._client, self._server)
        whole.cancel()

    async def _pass_on(self, sender: anyio.abc.ByteStream, receiver: anyio.abc.ByteStream) -> None:
        try:
            async for chunk in sender:
                if sender is self._server:
                    self._count_answer()
                if self._is_silent:
                    await anyio.sleep_forever()
                await receiver.send(chunk)
        except ENDS:
            return

    def _count_answer(self) -> None:
        if self._answers_left is not None:
            self._answers_left -= 1
            self._is_silent |= self._answers_left < 0
