"""Lone tries: contacts that imports did not take are tried by themselves, of many of one kind five first.

| of the contacts of one kind                          | then                                                |
|------------------------------------------------------|-----------------------------------------------------|
| there are `FIRST` or fewer                           | each is tried                                       |
| one of the first `FIRST` is accepted                 | the others are tried too, one by one                |
| the first are refused, each for a value of its own   | the others are tried too, one by one                |
| the first are refused with the same text             | the account is at fault: AccountRefused             |
| the first are refused with several texts, or get no  | the others are held                                 |
| answer                                               |                                                     |

Those whose refusal names a value are tried in any case, and are no kind. New and known contacts are two
kinds, and different texts are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from kiva_stream.errors import AccountRefused
from kiva_stream.model.contacts import ContactRecord
from kiva_stream.model.ids import ContactId
from kiva_stream.ports.state import Links
from kiva_stream.sync.contact_changes import ContactChange
from kiva_stream.sync.refusal_texts import blanked
from kiva_stream.sync.refused_fields import names_value

FIRST = 5


class RefusedRow(NamedTuple):
    """A contact that an import did not take, or was perhaps refused for."""

    change: ContactChange
    said: str = ""  # ActiveCampaign's reply; "": none
    was_alone: bool = False  # it was the only contact of the import

    @property
    def names_value(self) -> bool:
        """Whether the reply names a value of the contact, so that the account is not at fault."""
        return names_value(self.said, self.change.desired)


class Verdict(Enum):
    """What the first contacts of a kind say about the others."""

    TRY = "try"
    HOLD = "hold"
    ACCOUNT = "account"


def verdict(replies: Collection[str | None], *, names_values: bool) -> Verdict:
    """Return what becomes of the others; a reply is None of an accepted contact, "" without an answer."""
    refusals = {blanked(reply) for reply in replies if reply}
    if None in replies or (names_values and "" not in replies):
        return Verdict.TRY
    return Verdict.ACCOUNT if len(refusals) == 1 and "" not in replies else Verdict.HOLD


class LoneTries:
    """Tries contacts by themselves. Every call raises AccountRefused, and what `attempt` raises."""

    def __init__(self, links: Links) -> None:
        self._links = links

    async def each(
        self,
        rows: Sequence[RefusedRow],
        attempt: Callable[[RefusedRow], Awaitable[Mapping[ContactId, str]]],
    ) -> dict[ContactId, str]:
        """Try contacts; `attempt` returns the contact if it is held. Return all that are held, and why."""
        held: dict[ContactId, str] = {}
        for kind in _kinds(rows):
            first, others = (kind, []) if len(kind) <= FIRST else (kind[:FIRST], kind[FIRST:])
            for row in first:
                held |= await attempt(row)
            if others and (why := await self._why_held(first, held)):
                held |= {row.change.id: why for row in others}
                continue
            for row in others:
                held |= await attempt(row)
        return held

    async def _why_held(self, first: Sequence[RefusedRow], held: Mapping[ContactId, str]) -> str:
        """Return why the others are held, "" if they are not. Raises AccountRefused."""
        records = await self._links.records([row.change.id for row in first])
        desired = {row.change.id: row.change.desired for row in first}
        replies = {each.contact.id: _reply(each, held) for each in records}
        named = all(reply and names_value(reply, desired[contact]) for contact, reply in replies.items())
        found = verdict(replies.values(), names_values=named)
        said = next((reply for reply in replies.values() if reply), "") or next(iter(held.values()), "")
        if found is Verdict.ACCOUNT:
            await self._links.retry_refused(list(replies))  # they were not at fault
            raise AccountRefused(
                f"ActiveCampaign refused {len(replies)} contacts one after another, and none was accepted; "
                "look at the account's contact limit and its exclusion list. Nobody was dead-lettered: "
                f"{said}"
            )
        return f"others before it were refused: {said}" if found is Verdict.HOLD else ""


def _kinds(rows: Sequence[RefusedRow]) -> list[list[RefusedRow]]:
    """Return rows by kind, in their order; one whose refusal names a value is by itself."""
    kinds: defaultdict[tuple[object, ...], list[RefusedRow]] = defaultdict(list)
    for row in rows:
        own = row.change.id if row.names_value else None
        kinds[row.change.needs_import, blanked(row.said), own].append(row)
    return list(kinds.values())


def _reply(record: ContactRecord, held: Mapping[ContactId, str]) -> str | None:
    """Return what was said against a contact, "" if there was no answer, None if it was accepted."""
    if record.contact.id in held:
        return ""
    is_refused = record.contact.is_refused or record.refused_fingerprint is not None
    return record.contact.reply if is_refused else None
