"""What a new user gets wrong: one clear sentence saying what to do, the documented code, no traceback."""

from __future__ import annotations

from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.acceptance.stages import Stage

DAY1 = ("backfill", "--since", "day1")
NOWHERE = "postgresql://nobody@127.0.0.1:9/shop"  # the discard port: nothing listens there


def assert_sentence(said: str, *words: str) -> None:
    """Assert that what was said ends with one line that has these words, and has no traceback."""
    assert "Traceback" not in said
    last = said.strip().splitlines()[-1]
    for word in words:
        assert word in last, last


async def execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def assert_nothing_sent(stage: Stage) -> None:
    assert (await stage.activecampaign.state())["events"] == 0


def test_no_settings_at_all_names_the_keys_that_are_missing(shared: Stage) -> None:
    missing = dict.fromkeys(shared.environ, "")
    with_none = {key: value for key, value in missing.items() if "DSN" in key or "API" in key}
    said = shared.run(*DAY1, code=2, **with_none)
    assert_sentence(said, "source.dsn", "state.dsn")


@pytest.mark.parametrize("command", [("setup",), DAY1])
async def test_a_wrong_key_is_exit_4(shared: Stage, command: tuple[str, ...]) -> None:
    said = shared.run(*command, code=4, KIVA_STREAM__ACTIVECAMPAIGN__API_TOKEN="wrong")
    assert_sentence(said, "api_token")
    await assert_nothing_sent(shared)


async def test_a_wrong_event_key_is_exit_4_and_loses_nothing(ready: Stage) -> None:
    said = ready.run(*DAY1, code=4, KIVA_STREAM__ACTIVECAMPAIGN__EVENT_KEY="wrong")
    assert_sentence(said, "event_key")
    await assert_nothing_sent(ready)
    ready.run("backfill")
    assert (await ready.compare()).is_exact
    ready.assert_equation()


async def test_event_tracking_switched_off_is_exit_4_and_loses_nothing(ready: Stage) -> None:
    await ready.activecampaign.change(tracking_enabled=False)
    assert_sentence(ready.run(*DAY1, code=4), "tracking")
    await ready.activecampaign.change(tracking_enabled=True)
    ready.run("backfill")
    assert (await ready.compare()).is_exact
    ready.assert_equation()


def test_an_unreachable_source_is_exit_3(shared: Stage) -> None:
    assert_sentence(shared.run(*DAY1, code=3, KIVA_STREAM__SOURCE__DSN=NOWHERE), "source.dsn")


def test_an_unreachable_state_database_is_exit_5(shared: Stage) -> None:
    assert_sentence(shared.run(*DAY1, code=5, KIVA_STREAM__STATE__DSN=NOWHERE), "state.dsn")


@pytest.mark.parametrize(
    ("harm", "word"),
    [
        ("DROP TABLE kiva.delivery_weeks CASCADE", "kiva.delivery_weeks"),
        ("ALTER TABLE kiva.customers DROP COLUMN phone", "phone"),
        ("ALTER TABLE kiva.customers ALTER COLUMN email_opt_in DROP DEFAULT, "
         "ALTER COLUMN email_opt_in TYPE text", "email_opt_in"),
    ],
)  # fmt: skip
async def test_a_source_that_is_not_to_contract_is_exit_3(ready: Stage, harm: str, word: str) -> None:
    await execute(ready.dsn, harm)
    assert_sentence(ready.run(*DAY1, code=3), word)
    await assert_nothing_sent(ready)


async def test_a_role_without_select_is_exit_3_with_the_missing_grant(ready: Stage) -> None:
    role = f"reader_of_{urlsplit(ready.dsn).path.lstrip('/')[-12:]}"
    await execute(ready.dsn, f"CREATE ROLE {role} LOGIN", f"GRANT USAGE ON SCHEMA kiva TO {role}")
    dsn = ready.dsn.replace("postgresql://postgres", f"postgresql://{role}", 1)
    try:
        said = ready.run(*DAY1, code=3, KIVA_STREAM__SOURCE__DSN=dsn)
    finally:
        await execute(ready.dsn, f"DROP OWNED BY {role}", f"DROP ROLE {role}")
    assert_sentence(said, "GRANT SELECT ON kiva.")


def test_a_site_that_does_not_exist_is_exit_3_naming_the_setting(shared: Stage) -> None:
    assert_sentence(shared.run(*DAY1, code=3, KIVA_STREAM__SOURCE__SITE_ID="77"), "source.site_id")


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("SOURCE__SITE_ID", "one", "source.site_id"),
        ("PIPELINE__WINDOW", "0", "pipeline.window"),
        ("PIPELINE__WINDOWS", "5", "pipeline.windows"),
    ],
)
def test_a_setting_of_a_wrong_type_or_range_or_name_is_exit_2(
    shared: Stage, key: str, value: str, word: str
) -> None:
    said = shared.run(*DAY1, code=2, **{f"KIVA_STREAM__{key}": value})
    assert_sentence(said, word)


def test_a_state_of_another_account_is_refused_with_exit_2(carried: Stage) -> None:
    said = carried.run("backfill", code=2, KIVA_STREAM__ACTIVECAMPAIGN__EVENT_ACTID="999")
    assert_sentence(said, "belongs to the ActiveCampaign account")


def test_a_second_site_on_an_account_is_refused_with_exit_6(carried: Stage) -> None:
    said = carried.run(*DAY1, code=6, KIVA_STREAM__SOURCE__SITE_ID="2")
    assert_sentence(said, "serves site 1")


async def test_a_newer_state_schema_is_refused_with_exit_5(ready: Stage) -> None:
    await execute(ready.dsn, "INSERT INTO kiva_stream.version VALUES (99)")
    assert_sentence(ready.run(*DAY1, code=5), "newer")


def test_a_backfill_before_setup_names_setup(stage: Stage) -> None:
    assert_sentence(stage.run(*DAY1, code=5), "setup")


def test_a_first_backfill_without_since_is_exit_2(shared: Stage) -> None:
    assert_sentence(shared.run("backfill", code=2), "--since")


@pytest.mark.parametrize("since", ["yesterday", "12:x", "2026-13-01"])
def test_an_invalid_bound_is_exit_2_naming_the_option(shared: Stage, since: str) -> None:
    said = shared.run("backfill", "--since", since, code=2)
    assert "--since" in said
    assert "Traceback" not in said


def test_check_finds_what_is_wrong_and_exits_7(stage: Stage) -> None:
    ended = stage.ended("check")
    assert ended.code == 7, ended.err
    assert "setup" in ended.out


def test_check_says_that_all_is_well(shared: Stage) -> None:
    assert "the key is accepted" in shared.run("check")


def test_secrets_are_in_no_output(ready: Stage) -> None:
    keys = ready.activecampaign.accounts[0]
    for arguments, changed in (
        (("check",), {}),
        (DAY1, {"KIVA_STREAM__ACTIVECAMPAIGN__EVENT_KEY": "wrong-key"}),
    ):
        ended = ready.ended(*arguments, KIVA_STREAM__LOG__LEVEL="debug", **changed)
        said = ended.out + ended.err
        for secret in (keys.api_token, keys.event_key, "wrong-key"):
            assert secret not in said
