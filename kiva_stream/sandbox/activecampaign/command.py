"""The `sandbox` command: prints its address and keys on stdout, and serves until it is cancelled."""

from __future__ import annotations

import asyncio
import errno
import secrets
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import msgspec

from kiva_stream.errors import SettingsError
from kiva_stream.sandbox.activecampaign.account import SandboxAccount
from kiva_stream.sandbox.activecampaign.faults import Fault
from kiva_stream.sandbox.activecampaign.server import Running, Sandbox


def new_account(name: str = "sandbox") -> SandboxAccount:
    """Return the settings of a new account with random keys."""
    return SandboxAccount(
        name=name,
        api_token=secrets.token_hex(32),
        event_actid=str(secrets.randbelow(900_000_000) + 100_000_000),
        event_key=secrets.token_hex(20),
    )


async def run(
    port: int = 0,
    *,
    latency_ms: float = 0.0,
    jitter_ms: float = 0.0,
    faults: Iterable[Fault] = (),
    accounts: Sequence[SandboxAccount] = (),
) -> None:
    """Print one line of JSON (`api_url`, `event_url`, the keys of `accounts`), then serve until cancelled.

    Without accounts, serve a new one. Raises SettingsError when the port is in use.
    """
    accounts = accounts or [new_account()]
    sandbox = Sandbox(accounts, latency_ms=latency_ms, jitter_ms=jitter_ms, faults=faults)
    async with _served(sandbox, port) as running:
        sys.stdout.write(_address_and_keys(running, accounts) + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


@asynccontextmanager
async def _served(sandbox: Sandbox, port: int) -> AsyncIterator[Running]:
    try:
        async with sandbox.serve(port) as running:
            yield running
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise SettingsError(f"port {port} is in use: choose another with --port") from error


def _address_and_keys(running: Running, accounts: Iterable[SandboxAccount]) -> str:
    keys = [
        {
            "name": account.name,
            "api_token": account.api_token,
            "event_actid": account.event_actid,
            "event_key": account.event_key,
        }
        for account in accounts
    ]
    body = {"api_url": running.api_url, "event_url": running.event_url, "accounts": keys}
    return msgspec.json.encode(body).decode()
