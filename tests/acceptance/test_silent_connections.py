"""Commands whose connections to PostgreSQL go silent: each goes on in new ones, and says the same."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import anyio
import pytest

from kiva_stream.cli.exit_codes import exit_code
from kiva_stream.commands.backfill import backfill
from kiva_stream.commands.backfill_report import BackfillRequest
from kiva_stream.commands.plan import plan
from kiva_stream.errors import KivaStreamError
from kiva_stream.model.positions import DAY1
from kiva_stream.primitives.postgres import connections
from kiva_stream.sandbox.relay import Relay
from kiva_stream.settings import loading
from kiva_stream.verification.verify import VerifyRequest, verify
from tests.acceptance.live_shop import FOLLOW, arrived, live_shop
from tests.acceptance.stages import PATIENCE_S, Stage, wait_for_stderr
from tests.support.postgres import connected

ANSWERS = 12  # of the first connection, before it goes silent: it is in use by then
CONNECT_S = 0.5


def by_way_of(relay: Relay) -> Mapping[str, str]:
    """Return settings that lead a command through a relay, with short deadlines."""
    return {
        "KIVA_STREAM__SOURCE__DSN": relay.dsn,
        "KIVA_STREAM__STATE__DSN": relay.dsn,
        "KIVA_STREAM__SOURCE__STATEMENT_TIMEOUT_S": "0.5",
        "KIVA_STREAM__STATE__LEASE_S": "3",
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "--since", "day1", "--json"),
        ("verify", "--sample", "5"),
        ("dead-letters", "list"),
        ("check",),
    ],
)
async def test_a_command_goes_on_in_a_new_connection_when_one_goes_silent(
    carried: Stage, arguments: tuple[str, ...]
) -> None:
    said = await anyio.to_thread.run_sync(carried.run, *arguments)
    async with Relay.to(carried.dsn) as relay:
        relay.silence_next(ANSWERS)
        with anyio.fail_after(PATIENCE_S):
            again = await anyio.to_thread.run_sync(
                lambda: carried.run(*arguments, code=0, **by_way_of(relay))
            )
        assert relay.served > 1
    assert len(again.splitlines()) == len(said.splitlines())


@pytest.mark.parametrize(
    ("side", "words", "code"),
    [
        ("SOURCE", "Cannot reach the shop's database (source.dsn): no connection in time", 3),
        ("STATE", "The state database (state.dsn) cannot be used: no connection in time", 5),
    ],
)
async def test_a_command_whose_first_connection_goes_silent_at_its_start_is_one_sentence(
    carried: Stage, monkeypatch: pytest.MonkeyPatch, side: str, words: str, code: int
) -> None:
    monkeypatch.setattr(connections, "CONNECT_S", CONNECT_S)
    async with Relay.to(carried.dsn) as relay:
        settings = loading.load(None, {**carried.environ, f"KIVA_STREAM__{side}__DSN": relay.dsn})
        for command in (
            partial(plan, settings, BackfillRequest()),
            partial(backfill, settings, BackfillRequest(DAY1), lambda _: None),
            partial(verify, settings, VerifyRequest(sample=1)),
        ):
            relay.silence_next(1)
            with anyio.fail_after(10 * CONNECT_S), pytest.raises(KivaStreamError) as said:
                await command()
            assert (str(said.value), exit_code(said.value)) == (words, code)


async def test_follow_tells_of_connections_that_go_silent_and_delivers_what_comes(
    database: str, tmp_path: Path
) -> None:
    async with (
        live_shop(database, tmp_path, 1) as shop,
        Relay.to(database) as relay,
        connected(database) as writer,
    ):
        with shop.start(*FOLLOW, **by_way_of(relay)) as process:
            try:
                await shop.write(writer, 1)
                await arrived(shop, 1)
                assert relay.silence() > 0
                await shop.write(writer, 1)
                told = "a statement was not answered in time"
                await anyio.to_thread.run_sync(wait_for_stderr, process, told)
                await arrived(shop, 2)
            finally:
                process.terminate()
            await anyio.to_thread.run_sync(lambda: process.communicate(timeout=PATIENCE_S))
        assert process.returncode == 0
