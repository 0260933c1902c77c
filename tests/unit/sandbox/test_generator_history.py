from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from itertools import chain, pairwise

import pytest

from kiva_stream.sandbox.generator.commits import Commits, Entry
from kiva_stream.sandbox.generator.copy import log_rows
from kiva_stream.sandbox.generator.history import History
from kiva_stream.sandbox.generator.rows import Row


def transactions(history: History, commits: Commits) -> Iterator[list[Entry]]:
    for week in history.weeks():
        yield from commits.transactions(week)
        list(history.finished_orders())
    yield from commits.rest()


def digest(entries: int, seed: int, sites: int = 1) -> str:
    found = sha256()
    for transaction in transactions(History(entries, seed, sites=sites), Commits(seed)):
        found.update(log_rows(transaction).encode())
    return found.hexdigest()


def rows_of(entries: int, seed: int, site_id: int = 1) -> list[Row]:
    found = transactions(History(entries, seed), Commits(seed))
    return [row for transaction in found for _, row in transaction if row.site_id == site_id]


def test_the_same_seed_gives_an_identical_log() -> None:
    assert digest(3_000, seed=1) == digest(3_000, seed=1)
    assert digest(3_000, seed=1, sites=3) == digest(3_000, seed=1, sites=3)


def test_another_seed_gives_another_log() -> None:
    assert digest(1_000, seed=1) != digest(1_000, seed=2)


@pytest.mark.parametrize("entries", [1, 2, 17, 999, 5_000])
@pytest.mark.parametrize("sites", [1, 2, 3])
def test_a_log_has_as_many_entries_as_were_asked_for(entries: int, sites: int) -> None:
    found = transactions(History(entries, 4, sites=sites), Commits(4))
    counted = Counter(row.site_id for transaction in found for _, row in transaction)
    if sites == 1:
        assert counted[1] == entries
        assert counted[2] > 0  # another site shares the log, and does not count
    else:
        assert counted.total() == entries


def test_a_larger_log_holds_the_entries_of_one_week_at_a_time() -> None:
    history, most = History(20_000, 4), 0
    for week in history.weeks():
        most = max(most, sum(1 for _ in week))
        list(history.finished_orders())
        kept = sum(
            len(member.shop.current_orders) + len(list(member.shop.unfinished_orders()))
            for member in history.members
        )
        assert kept < 250  # orders of two weeks, and what stays unpaid
    assert most < 20_000 * 1.03 * 6200 / 182_000 * 1.3


def test_the_year_ends_before_october_2026() -> None:
    latest = max(row.inserted_ms for row in rows_of(3_000, 6))
    assert latest < 1_790_812_800_000


def test_late_rows_put_ids_out_of_log_order_and_rolled_back_ones_leave_gaps() -> None:
    commits = Commits(8)
    found = [log_id for entries in transactions(History(40_000, 8), commits) for log_id, _ in entries]
    assert len(found) == len(set(found))
    assert sum(after < before for before, after in pairwise(found)) > 0
    assert commits.late / len(found) == pytest.approx(0.0051, abs=0.0015)
    missing = set(range(1, commits.last_id + 1)) - set(found)
    assert len(missing) / len(found) == pytest.approx(0.003, abs=0.001)


def test_within_a_transaction_entries_are_in_order_of_their_ids() -> None:
    for entries in transactions(History(10_000, 8), Commits(8)):
        ids = [log_id for log_id, _ in entries]
        assert ids == sorted(ids)
        assert len(ids) < 1_100


def test_a_late_row_is_in_a_later_transaction_than_rows_with_higher_ids() -> None:
    commits, highest, late = Commits(8), 0, 0
    rows = (row for week in History(30_000, 8).weeks() for row in week)
    for entries in chain(commits.transactions(rows), commits.rest()):
        ids = [log_id for log_id, _ in entries]
        late += sum(log_id < highest for log_id in ids)
        highest = max(highest, *ids)
    assert late == commits.late > 0


@pytest.fixture(scope="module")
def large() -> tuple[History, Counter[int]]:
    """A large history, read to its end, and the entry counts of its hot customers."""
    history, hot = History(150_000, 9), Counter[int]()
    for week in history.weeks():
        hot.update(row.customer.id for row in week if row.customer.hot and row.site_id == 1)
        list(history.finished_orders())
    return history, hot


def test_malformed_rows_have_their_shares_and_all_their_kinds(large: tuple[History, Counter[int]]) -> None:
    dirt = large[0].dirt()
    assert set(dirt) == {
        *("contradiction", "huge_data", "long_message", "mail_only", "no_data", "odd_value", "shared_mail"),
        *("stranger", "unknown_action", "wild_clock", "wrong_site", "wrong_type"),
    }
    wild = dirt.pop("wild_clock")
    assert dirt.total() / 150_000 == pytest.approx(0.0020, rel=0.15)
    assert wild / 150_000 == pytest.approx(0.0002, rel=0.4)


def test_three_hot_customers_make_at_least_a_thousandth_of_all_entries_each(
    large: tuple[History, Counter[int]],
) -> None:
    hot = large[1]
    assert len(hot) == 3
    assert all(0.001 <= count / 150_000 <= 0.006 for count in hot.values())  # the less the larger the log


def test_duplicates_are_one_in_two_thousand_and_within_two_seconds() -> None:
    history = History(20_000, 3)
    doubled = [
        (before, row)
        for week in history.weeks()
        for before, row in pairwise(week)
        if (before.customer, before.message, before.data) == (row.customer, row.message, row.data)
        and 0 <= row.inserted_ms - before.inserted_ms < 2_000
        and row.kind.sort == "event"
    ]
    assert len(doubled) == 10  # the small site beside it has too few for one


def test_a_wrong_customer_id_is_one_of_another_site() -> None:
    history = History(60_000, 5)
    found = [
        row
        for entries in transactions(history, Commits(5))
        for _, row in entries
        if row.reason == "wrong_site" and row.site_id == 1
    ]
    others = {
        customer.id for customer in history.members[1].shop.population.customers if customer.anomaly == ""
    }
    assert found
    assert {row.customer_id for row in found} <= others
