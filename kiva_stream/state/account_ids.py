"""The account's ids that the state of a site is about (the column `site.account_ids`)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kiva_stream.model.account_ids import AccountIds, IdKind, changed_kinds
from kiva_stream.observability.logs import log
from kiva_stream.state.store import LONG_S, Connection, Store

OF_OTHER_IDS: Mapping[IdKind, tuple[str, ...]] = {  # the statements about what was recorded for others
    IdKind.CONNECTION: (
        "carried_as_history",
        "forget_refused_orders",
        "sent_as_history",
        "forget_carried_orders",
        "forget_order_tallies",
    ),
    IdKind.LIST: ("contacts_on_no_list", "forget_imports", "list_places_due"),
    IdKind.FIELDS: ("contacts_differ", "forget_imports"),
    IdKind.TAGS: ("forget_tags", "held_tags_due"),
}
SAID = {
    IdKind.CONNECTION: "the connection is another one: all orders that it has not are sent to it as history",
    IdKind.LIST: (
        "the list `all customers` is another one: opt-outs are set there, "
        "and no contact linked before is subscribed; move the old list's members to it at ActiveCampaign"
    ),
    IdKind.FIELDS: "fields have other ids: all contacts are sent again",
    IdKind.TAGS: "week tags have other ids: the tags of all contacts are looked up",
}


class SiteAccountIds:
    """The account's ids that the state of one site is about."""

    def __init__(self, store: Store, site_id: int) -> None:
        self._store = store
        self._site_id = site_id

    async def adopt(self, ids: AccountIds) -> frozenset[IdKind]:
        """Have the state be about these ids from now on; return the kinds of which it was about others.

        | another id of | then                                                                            |
        |---------------|---------------------------------------------------------------------------------|
        | a connection  | every order counts as not sent, and is sent as HISTORICAL; only those that were |
        |               | never carried as REAL_TIME get their source anew                                |
        | a list        | opt-outs count as not set, and the other linked contacts as not on the list     |
        | a field       | every contact differs                                                           |
        | a tag         | the tag of no contact is known                                                  |

        It is one transaction. No other part may write to the state meanwhile. Raises CheckpointError.
        """
        found, sql, changed = ids.by_kind(), self._store.sql, set[IdKind]()

        async def writing(connection: Connection) -> None:
            stored = await connection.fetchval(sql["account_ids"], self._site_id)
            known = {} if stored is None else msgspec.json.decode(stored, type=dict[IdKind, dict[str, int]])
            others = changed_kinds(known, found)
            for statement in (each for kind in IdKind if kind in others for each in OF_OTHER_IDS[kind]):
                await connection.execute(sql[statement], self._site_id, timeout=LONG_S)
            if known != found:
                encoded = msgspec.json.encode(found).decode()
                await connection.execute(sql["record_account_ids"], self._site_id, encoded)
            changed.update(others)  # when this is repeated, the state may be about these ids already

        await self._store.write(writing)
        for kind in sorted(changed):
            log.warning(f"ActiveCampaign: {SAID[kind]}")
        return frozenset(changed)
