"""The local ActiveCampaign in a process of its own: it ends with its client, or raises when it fails."""

from __future__ import annotations

import socket
import subprocess
import sys

import aiohttp
import anyio
import anyio.lowlevel
import pytest

from kiva_stream.errors import SettingsError
from kiva_stream.sandbox.process import local_activecampaign

PARENT = """
import anyio, sys
from kiva_stream.sandbox.process import local_activecampaign
async def main():
    async with local_activecampaign() as activecampaign:
        print(activecampaign.api_url, flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


async def is_listening(api_url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{api_url}/_sandbox/state"):
            return True
    except aiohttp.ClientError:
        return False


async def test_a_sandbox_ends_with_its_block() -> None:
    async with local_activecampaign() as activecampaign:
        assert await is_listening(activecampaign.api_url)
    with anyio.fail_after(10):
        while await is_listening(activecampaign.api_url):
            await anyio.lowlevel.checkpoint()


async def test_a_sandbox_ends_with_a_parent_that_is_killed() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:  # noqa: ASYNC220  it is killed
        assert parent.stdout is not None
        api_url = (await anyio.to_thread.run_sync(parent.stdout.readline)).strip()
        assert await is_listening(api_url)
        parent.kill()
    with anyio.fail_after(10):
        while await is_listening(api_url):
            await anyio.lowlevel.checkpoint()


async def test_the_state_counts_breaches_of_requests_that_name_no_account() -> None:
    async with local_activecampaign() as activecampaign, aiohttp.ClientSession() as session:
        actid = activecampaign.accounts[0].event_actid
        for form in ({"actid": actid}, {"actid": "0"}, {"no": "actid"}):
            await session.post(activecampaign.event_url, data=form)
        await session.put(activecampaign.event_url)
        state = await activecampaign.state()
    assert state["breaches"] == {"schema": 3, "unknown_operation": 1}
    assert state["requests"] == {"trackEvent": 1}


def test_a_port_in_use_is_wrong_usage_that_names_the_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "kiva_stream", "sandbox", "--port", port]
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert said.stderr == f"port {port} is in use: choose another with --port\n"
    assert said.returncode == 2
    assert said.stdout == ""


async def test_a_sandbox_that_cannot_start_raises_instead_of_waiting() -> None:
    with anyio.fail_after(20), pytest.raises(SettingsError, match="did not start"):
        async with local_activecampaign("--no-such-option"):
            pass
