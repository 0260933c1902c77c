"""Check: which rows are ok, and what the others say to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from kiva_stream.commands.check import CLOCK_SKEW, SLOW_S, changes_row, clock_row, currency_row

NOON = datetime(2018, 11, 27, 12, tzinfo=UTC)


@pytest.mark.parametrize("took_s", [0, SLOW_S])
def test_changes_that_are_found_quickly_are_ok(took_s: float) -> None:
    line = changes_row(took_s)
    assert (line.subject, line.ok) == ("changes", True)
    assert "index" not in line.text


def test_changes_that_are_found_slowly_are_not_ok_and_the_row_names_the_index() -> None:
    line = changes_row(SLOW_S + 2.34)
    assert (line.subject, line.ok) == ("changes", False)
    assert "3.3 s" in line.text
    assert "(site_id, updated_at, id)" in line.text


@pytest.mark.parametrize("sign", [-1, 1])
def test_clocks_may_differ_by_a_minute_and_no_more(sign: int) -> None:
    assert clock_row(NOON, NOON + sign * CLOCK_SKEW).ok
    line = clock_row(NOON, NOON + sign * timedelta(hours=2))
    assert (line.subject, line.ok) == ("clock", False)
    assert "7,200 s" in line.text


@pytest.mark.parametrize("currency", ["USD", "ZAR", "EUR", "AED", "ZWG"])
def test_a_currency_of_iso_4217_is_ok(currency: str) -> None:
    assert currency_row(currency).ok


@pytest.mark.parametrize("currency", ["", "EURO", "XYZ", "$", "US", "RAND"])
def test_a_currency_that_is_no_code_of_iso_4217_is_told_with_what_to_do(currency: str) -> None:
    row = currency_row(currency)
    assert (row.subject, row.ok) == ("currency", False)
    assert f"sites.currency is '{currency}'" in row.text
    assert "correct it at the shop" in row.text
