"""A receiver of events that takes as little time as can be, in a process of its own: raw asyncio.Protocol.

`python -m benchmarks.receiver` prints its port, and ends when its input does, so with its parent.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import cast

import anyio
import uvloop

from kiva_stream.sandbox.process import Keys, LocalActiveCampaign

KEYS = Keys("receiver", "token", "25550001", "key")

_BODY = b'{"success":1,"message":"Event spawned"}'
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_BODY),
    _BODY,
)
_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Receiver(asyncio.Protocol):
    """One connection: answers every request that has come in whole."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        self._received += data
        while end := _end_of_request(self._received):
            self._received = self._received[end:]
            self._transport.write(_ANSWER)


def _end_of_request(received: bytes) -> int:
    """Return where the first request ends; 0 when it is not there yet."""
    head, end_of_head, body = received.partition(_END_OF_HEAD)
    if not end_of_head:
        return 0
    length = int(head.lower().partition(_LENGTH)[2].partition(b"\r\n")[0] or 0)
    return len(head) + len(end_of_head) + length if len(body) >= length else 0


async def serve() -> None:
    """Listen on loopback until the input ends."""
    loop = asyncio.get_running_loop()
    async with await loop.create_server(Receiver, "127.0.0.1", 0, backlog=1024) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


@asynccontextmanager
async def receiver() -> AsyncIterator[LocalActiveCampaign]:
    """Run one; give it as an account that takes events only."""
    with _process() as process:
        assert process.stdout is not None
        port = await anyio.to_thread.run_sync(process.stdout.readline)
        url = f"http://127.0.0.1:{int(port)}"
        yield LocalActiveCampaign(url, f"{url}/event", [KEYS])


@contextmanager
def _process() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.receiver"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()


if __name__ == "__main__":
    uvloop.run(serve())
