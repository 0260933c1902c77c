"""The generator's texts match the event catalog's patterns and pairs, without the project's classifier."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache

import pytest

from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.sandbox.generator.commits import Commits
from kiva_stream.sandbox.generator.history import History
from kiva_stream.sandbox.generator.population import NO_CUSTOMER
from kiva_stream.sandbox.generator.rows import Row

PARTICLES = "van|der|den|ter|de|von|da|del|la|le|el|dos|das|bin"
NAME_WORD = rf"(?:[^\W\d_a-z][\w'.-]*|{PARTICLES})"
PREFIXES = (
    re.compile(""),
    re.compile(rf"{NAME_WORD}(?: {NAME_WORD}){{0,3}} (?=[a-z])"),
    re.compile(r"Customer #\d+ \([^)]*\) "),
)
PATTERNS = [(line.number, re.compile(text, re.IGNORECASE)) for line in CATALOG.events for text in line.legacy]
SAME_EVENT: dict[int | str, int | str] = {35: 16}  # two event lines, one event


@cache
def rows() -> tuple[Row, ...]:
    history = History(30_000, seed=5)
    entries = Commits(5).transactions(row for week in history.weeks() for row in week)
    return tuple(row for transaction in entries for _, row in transaction if row.site_id == 1)


def readings(row: Row) -> Iterator[str]:
    """Yield what may stand after the actor prefix."""
    text = row.message.removeprefix(f"{row.customer.name} ")
    if row.customer is not NO_CUSTOMER and text != row.message and text[:1].islower():
        yield text
    for prefix in PREFIXES:
        if found := prefix.match(row.message):
            yield row.message[found.end() :]


def matched_line(row: Row) -> int | None:
    found = [
        (len(match[0]), line)
        for text in readings(row)
        for line, pattern in PATTERNS
        if (match := pattern.match(text))
    ]
    return max(found)[1] if found else None


def value_at(data: object, path: str) -> object:
    for part in path.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data


def test_every_legacy_event_matches_the_pattern_of_its_own_event_line() -> None:
    legacy = [row for row in rows() if row.action is None and row.sort == "event"]
    wrong = [
        (row.kind.key, row.message)
        for row in legacy
        if matched_line(row) != SAME_EVENT.get(row.kind.key, row.kind.key)
    ]
    assert wrong == []
    assert {row.kind.key for row in legacy} >= {line.number for line in CATALOG.events} - {21, 24}


def test_no_legacy_text_of_another_kind_looks_like_an_event() -> None:
    others = [row for row in rows() if row.action is None and row.sort != "event"]
    assert [row.message for row in others if matched_line(row) is not None] == []
    assert any("logged in as customer #" in row.message for row in others)
    assert any("she cancelled" in row.message for row in others)


def test_both_generations_of_legacy_text_and_the_structured_one_are_there_at_their_shares() -> None:
    found = rows()
    legacy = [row for row in found if row.action is None]
    second = [row for row in legacy if row.message.startswith("Customer #")]
    assert len(legacy) / len(found) == pytest.approx(0.389, abs=0.01)
    unnamed = [row for row in second if row.customer_id is None]
    assert len(unnamed) / len(second) == pytest.approx(0.40, abs=0.03)
    assert all(row.data is None and row.actor is None and row.pairs == "" for row in legacy)


def test_the_pairs_of_a_clean_structured_event_are_those_of_its_data() -> None:
    checked = set()
    for row in rows():
        line = row.kind.event_line
        if row.action is None or line is None or row.dirt or row.data is None:
            continue
        data, pairs = json.loads(row.data), dict(pair.split("=", 1) for pair in row.pairs.split("; ")[:-1])
        wanted = [pair for pair in line.eventdata if pair.key != "by"]
        assert list(pairs) == [pair.key for pair in wanted]
        for pair in wanted:
            value = value_at(data, pair.path)
            if pair.format == "money":
                assert isinstance(value, int)
                assert float(pairs[pair.key]) == value / 100
            elif pair.format == "text":
                assert pairs[pair.key] == str(value)
        assert row.action in line.actions
        checked.add(line.number)
    assert checked >= {line.number for line in CATALOG.events} - {18, 21, 24, 42}


def test_staff_causes_under_one_percent_of_customers_events() -> None:
    mine = [row for row in rows() if row.kind.key in {4, 5, 6, 8, 10}]
    share = sum(row.staff is not None for row in mine) / len(mine)
    assert share == pytest.approx(0.008, abs=0.003)


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [("schedule.frequency", "from_weeks", "to_weeks"), ("subscription.box", "from", "to")],
)
def test_a_change_of_box_or_frequency_takes_another_value(action: str, before: str, after: str) -> None:
    changes = [json.loads(row.data) for row in rows() if row.action == action and row.data and not row.dirt]
    assert changes
    assert all(change[before] != change[after] for change in changes)
