"""A local ActiveCampaign in a process of its own, so that it takes no time from whom it serves."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp
import anyio
import msgspec

from kiva_stream.errors import SettingsError

# The shell ends with the sandbox; who reads to the end of its input ends the sandbox with whoever holds the
# other end of that pipe.
_WITH_ITS_PARENT = """
exec 3<&0
"$@" </dev/null & sandbox=$!
exec 2>/dev/null
{ cat <&3; kill "$sandbox"; } >/dev/null &
wait "$sandbox"
"""


class Keys(msgspec.Struct, frozen=True):
    """An account of the sandbox, as its owner knows it."""

    name: str
    api_token: str
    event_actid: str
    event_key: str


class LocalActiveCampaign(msgspec.Struct, frozen=True):
    """Where the sandbox listens, and with which keys: what its process says of itself."""

    api_url: str
    event_url: str
    accounts: list[Keys]

    def environ(self) -> dict[str, str]:
        """Return the settings that name it, as environment variables."""
        account = self.accounts[0]
        settings = {
            "API_URL": self.api_url,
            "EVENT_URL": self.event_url,
            "API_TOKEN": account.api_token,
            "EVENT_ACTID": account.event_actid,
            "EVENT_KEY": account.event_key,
        }
        return {f"KIVA_STREAM__ACTIVECAMPAIGN__{key}": value for key, value in settings.items()}

    async def state(self) -> dict[str, Any]:
        """Return the figures of its first account: requests, breaches, events, contacts; and `faults` drawn.

        Its `breaches` hold those of no account too: a request too broken to name one is its client's all the
        same.
        """
        async with aiohttp.ClientSession() as session, session.get(f"{self.api_url}/_sandbox/state") as reply:
            state: dict[str, Any] = await reply.json()
        figures: dict[str, Any] = state["accounts"][self.accounts[0].name]
        breaches = Counter(figures["breaches"]) + Counter(state["no_account"]["breaches"])
        return {**figures, "breaches": dict(breaches), "faults": state["faults"]}

    async def rows(self, what: str) -> AsyncIterator[dict[str, Any]]:
        """Yield all of its `events` in the order of arrival, or its `contacts`."""
        url = f"{self.api_url}/_sandbox/{what}"
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as reply:
            async for line in reply.content:
                yield msgspec.json.decode(line)

    async def change(self, **settings: object) -> None:
        """Change settings of its first account while it runs."""
        await self._post("settings", settings)

    async def fail(self, *faults: str | Mapping[str, object]) -> None:
        """Set faults instead of those in force: `PATH:KIND:SHARE[:COUNT]`, or the fields of a `Fault`."""
        await self._post("faults", faults)

    async def lose(self, *, events: Collection[int] = (), orders: Collection[str] = ()) -> None:
        """Have contacts' logs list these events no more, by their seq, and drop orders, by the shop's ids."""
        await self._post("lose", {"events": list(events), "orders": list(orders)})

    async def _post(self, what: str, body: object) -> None:
        url = f"{self.api_url}/_sandbox/{what}"
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as reply:
            reply.raise_for_status()


@asynccontextmanager
async def local_activecampaign(*options: str) -> AsyncIterator[LocalActiveCampaign]:
    """Run `kiva_stream sandbox` with these options; it ends with the block, and with this process."""
    command = [sys.executable, "-m", "kiva_stream", "sandbox", *options]
    with _process(command) as process:
        assert process.stdout is not None  # noqa: S101  it is a pipe
        line = await anyio.to_thread.run_sync(process.stdout.readline)
        if not line:
            raise SettingsError("The local ActiveCampaign did not start; what it said stands above.")
        yield msgspec.json.decode(line, type=LocalActiveCampaign)


@contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    shell = ["/bin/sh", "-c", _WITH_ITS_PARENT, "sh", *command]
    with subprocess.Popen(  # noqa: S603  our own command
        shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None  # noqa: S101  it is a pipe
            process.stdin.close()
