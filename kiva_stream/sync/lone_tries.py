"""Lone tries: contacts that imports did not take are tried by themselves, of many of one kind five first.

| of the contacts of one kind                          | then                                                |
|------------------------------------------------------|-----------------------------------------------------|
| there are `FIRST` or fewer                           | each is tried                                       |
| one of the first `FIRST` is accepted                 | the others are tried too, one by one                |
| the first are refused, each for a value of its own   | the others are tried too, one by one                |
| the first are held, since their refusals name no     | the others are held; the account may be at fault:   |
| value, or get no answer                              | see `conviction`                                    |

Those whose refusal names a value are tried in any case, and are no kind. New and known contacts are two
kinds, and different texts are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from kiva_stream.model.ids import ContactId
from kiva_stream.sync.contact_changes import ContactChange
from kiva_stream.sync.contact_refusals import ContactRefusals
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


class LoneTries:
    """Tries contacts by themselves. Every call raises what `attempt` raises."""

    def __init__(self, refusals: ContactRefusals) -> None:
        self._refusals = refusals

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
            if others and all(row.change.id in held for row in first):
                why = f"others before it were not taken: {held[first[-1].change.id]}"
                held |= {row.change.id: why for row in others}
                held |= await self._refusals.held([row.change for row in others])
                continue
            for row in others:
                held |= await attempt(row)
        return held


def _kinds(rows: Sequence[RefusedRow]) -> list[list[RefusedRow]]:
    """Return rows by kind, in their order; one whose refusal names a value is by itself."""
    kinds: defaultdict[tuple[object, ...], list[RefusedRow]] = defaultdict(list)
    for row in rows:
        own = row.change.id if row.names_value else None
        kinds[row.change.needs_import, blanked(row.said), own].append(row)
    return list(kinds.values())
