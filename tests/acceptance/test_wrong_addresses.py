"""A mistyped address of ActiveCampaign: the run says which setting it is, and nothing dies of it."""

from __future__ import annotations

import pytest

from tests.acceptance.stages import Stage

API_URL, EVENT_URL = "KIVA_STREAM__ACTIVECAMPAIGN__API_URL", "KIVA_STREAM__ACTIVECAMPAIGN__EVENT_URL"
NOWHERE = "/_sandbox/nowhere"  # a plain 404, before anybody looks at a key


def last_line(said: str) -> str:
    return said.strip().splitlines()[-1]


async def test_a_mistyped_event_url_is_exit_4_and_dead_letters_no_event(ready: Stage) -> None:
    nowhere = ready.environ[API_URL] + NOWHERE
    said = ready.run("backfill", "--since", "day1", code=4, **{EVENT_URL: nowhere})
    assert "event_url" in last_line(said)
    assert (await ready.activecampaign.state())["events"] == 0
    ready.run("backfill")
    assert (await ready.compare()).is_exact
    ready.assert_equation()


@pytest.mark.parametrize("command", [("setup",), ("backfill", "--since", "day1")])
def test_a_mistyped_api_url_is_exit_4(ready: Stage, command: tuple[str, ...]) -> None:
    said = ready.run(*command, code=4, **{API_URL: ready.environ[API_URL] + NOWHERE})
    assert "api_url" in last_line(said)
