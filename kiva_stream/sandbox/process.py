"""A local ActiveCampaign in a process of its own, so that it takes no processor time from its client."""

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

# The shell ends with the sandbox. Its `cat` reads to the end of the shell's input, so the sandbox is killed
# when the process that holds the other end of that pipe closes it or ends.
_ENDED_WITH_PARENT = """
exec 3<&0
"$@" </dev/null & sandbox=$!
exec 2>/dev/null
{ cat <&3; kill "$sandbox"; } >/dev/null &
wait "$sandbox"
"""


class Keys(msgspec.Struct, frozen=True):
    """The keys of an account of the sandbox."""

    name: str
    api_token: str
    event_actid: str
    event_key: str


class LocalActiveCampaign(msgspec.Struct, frozen=True):
    """The addresses and keys of a sandbox, as its process prints them."""

    api_url: str
    event_url: str
    accounts: list[Keys]

    def environ(self) -> dict[str, str]:
        """Return the settings for its first account, as environment variables."""
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
        """Return the figures of its first account, and the `faults` drawn.

        `breaches` include those of requests that name no account: they come from the same client.
        """
        url = f"{self.api_url}/_sandbox/state"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            state: dict[str, Any] = await response.json()
        figures: dict[str, Any] = state["accounts"][self.accounts[0].name]
        breaches = Counter(figures["breaches"]) + Counter(state["no_account"]["breaches"])
        return {**figures, "breaches": dict(breaches), "faults": state["faults"]}

    async def rows(self, what: str) -> AsyncIterator[dict[str, Any]]:
        """Yield all rows of a control path, for instance `events` in the order of arrival, or `contacts`."""
        url = f"{self.api_url}/_sandbox/{what}"
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            async for line in response.content:
                yield msgspec.json.decode(line)

    async def change(self, **settings: object) -> None:
        """Change settings of its first account."""
        await self._post("settings", settings)

    async def fail(self, *faults: str | Mapping[str, object]) -> None:
        """Replace the faults in force: by `PATH:KIND:SHARE[:COUNT]` texts, or by the fields of `Fault`s."""
        await self._post("faults", faults)

    async def lose(self, *, events: Collection[int] = (), orders: Collection[str] = ()) -> None:
        """Remove events from their contacts' logs, by seq, and delete orders, by the shop's ids."""
        await self._post("lose", {"events": list(events), "orders": list(orders)})

    async def disconnect(self, *connections: int) -> None:
        """Delete connections of its first account by their ids, with their orders."""
        await self._post("disconnect", connections)

    async def _post(self, what: str, body: object) -> None:
        url = f"{self.api_url}/_sandbox/{what}"
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
            response.raise_for_status()


@asynccontextmanager
async def local_activecampaign(*options: str) -> AsyncIterator[LocalActiveCampaign]:
    """Run `kiva_stream sandbox` with these options. It ends with the block, and with this process."""
    command = [sys.executable, "-m", "kiva_stream", "sandbox", *options]
    with _process(command) as process:
        assert process.stdout is not None  # noqa: S101  it is a pipe
        line = await anyio.to_thread.run_sync(process.stdout.readline)
        if not line:
            raise SettingsError("The local ActiveCampaign did not start; what it said stands above.")
        yield msgspec.json.decode(line, type=LocalActiveCampaign)


@contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    shell = ["/bin/sh", "-c", _ENDED_WITH_PARENT, "sh", *command]
    with subprocess.Popen(  # noqa: S603  our own command
        shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None  # noqa: S101  it is a pipe
            process.stdin.close()
