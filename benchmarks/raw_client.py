"""The floor of sending: a client of raw asyncio.Protocol, one request at a time on each connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import cast
from urllib.parse import urlsplit

from benchmarks.carriage import Spent, Stopwatch
from kiva_stream.runtime.garbage import garbage_collected_rarely

_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: raw\r\n"
    "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n"
)
_RECORDED = b'"success":1'


class Poster(asyncio.Protocol):
    """Posts bodies until there are no more; an answer is one piece, as the receiver writes it."""

    def __init__(self, bodies: Iterator[bytes], host: str, path: str) -> None:
        self._bodies = bodies
        self._host, self._path = host, path
        self.is_done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Post the first."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        self._post()

    def data_received(self, data: bytes) -> None:
        """Post the next."""
        if _RECORDED not in data:
            self.is_done.set_exception(ValueError(f"not what the receiver answers: {data!r}"))
            return
        self._post()

    def connection_lost(self, error: Exception | None) -> None:
        """Fail, unless all was posted."""
        if not self.is_done.done():
            self.is_done.set_exception(error or ConnectionError("the receiver closed a connection"))

    def _post(self) -> None:
        body = next(self._bodies, None)
        if body is None:
            self._transport.close()
            self.is_done.set_result(None)
        else:
            head = _HEAD.format(path=self._path, host=self._host, length=len(body))
            self._transport.write(head.encode() + body)


async def post_all(url: str, bodies: list[bytes], in_flight: int) -> Spent:
    """Post all bodies, so many at a time; return what that took."""
    parts = urlsplit(url)
    host, port, left = str(parts.hostname), int(parts.port or 80), iter(bodies)
    loop = asyncio.get_running_loop()
    watch = Stopwatch()
    posters = []
    with garbage_collected_rarely():  # as in the pipeline
        for _ in range(in_flight):
            _, poster = await loop.create_connection(
                lambda: Poster(left, parts.netloc, parts.path), host, port
            )
            posters.append(poster)
        await asyncio.gather(*(poster.is_done for poster in posters))
    return watch.spent(len(bodies))
