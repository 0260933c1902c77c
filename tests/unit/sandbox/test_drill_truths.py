"""What a drill counts as kept of others, and the contacts that its faults are about."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kiva_stream.sandbox.drill.site import SITE_ID, DrillError
from kiva_stream.sandbox.drill.truths import KnownContact, known_contacts, missing_of_others
from kiva_stream.sandbox.process import LocalActiveCampaign

ANN, BEA = "ann@example.com", "bea@example.com"
TABLES = """
CREATE TABLE contact (site_id, email, kiva_customer_id, phone, customer_ids);
CREATE TABLE customer_order (site_id, order_id, email);
CREATE TABLE entry (site_id, log_id, outcome, email);
"""


class Arrived(LocalActiveCampaign, frozen=True):
    """A local ActiveCampaign that has these rows."""

    there: dict[str, list[dict[str, Any]]] = msgspec.field(default_factory=dict)

    async def rows(self, what: str) -> AsyncIterator[dict[str, Any]]:
        """Yield them."""
        for row in self.there[what]:
            yield row


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Two contacts, each with three events and two orders; an entry of another outcome; another site."""
    path = tmp_path / "truth"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(TABLES)
        for number, email in enumerate((ANN, BEA), 1):
            row = (SITE_ID, email, str(number), "+1 555", str(number))
            database.execute("INSERT INTO contact VALUES (?, ?, ?, ?, ?)", row)
            for each in (10, 20):
                order = (SITE_ID, each + number, email)
                database.execute("INSERT INTO customer_order VALUES (?, ?, ?)", order)
            for each in (100, 200, 300):
                entry = (SITE_ID, each + number, "delivered", email)
                database.execute("INSERT INTO entry VALUES (?, ?, ?, ?)", entry)
        database.execute("INSERT INTO entry VALUES (?, 999, 'synced', ?)", (SITE_ID, ANN))
        database.execute("INSERT INTO entry VALUES (?, 998, 'delivered', ?)", (SITE_ID + 1, ANN))
        database.commit()
    return path


async def test_what_has_not_arrived_of_others_is_kept(truth: Path) -> None:
    there = {
        "events": [{"eventdata": f"a=1 log={number}"} for number in (101, 201, 301, 102)],
        "contacts": [{"email": ANN}],
        "orders": [{"storeOrderId": "11"}, {"storeOrderId": "12"}],
    }
    arrived = Arrived(api_url="", event_url="", accounts=[], there=there)
    assert await missing_of_others(truth, arrived, [BEA]) == 1  # an order of Ann's
    assert await missing_of_others(truth, arrived, [ANN]) == 1 + 1 + 2
    assert await missing_of_others(truth, arrived, []) == 5


def test_faults_are_about_contacts_with_several_events_and_orders(truth: Path) -> None:
    assert known_contacts(truth, 2) == [
        KnownContact(ANN, 1, "+1 555", 21),
        KnownContact(BEA, 2, "+1 555", 22),
    ]
    with pytest.raises(DrillError, match="more entries are needed"):
        known_contacts(truth, 3)
