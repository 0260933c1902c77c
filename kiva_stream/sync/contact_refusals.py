"""Contact refusals: what follows when ActiveCampaign refuses a contact, or accepts one.

Creating contacts and updating them are two kinds of requests, each of which may be paused: see `conviction`.
What one kind knows of a contact is forgotten when the other kind carries it.

| ActiveCampaign refuses a contact                          | then it is                                    |
|-----------------------------------------------------------|-----------------------------------------------|
| and names a value of it                                   | recorded as refused                           |
| and names none, between two acceptances of other contacts | recorded as refused after the later one       |
| and names none                                            | held: it is tried again                       |
| since it refuses the account                              | held with all others of the kind, which go on |
|                                                           | when one is accepted                          |
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import anyio.lowlevel

from kiva_stream.errors import PermissionRefused
from kiva_stream.model.ids import ContactId
from kiva_stream.model.incidents import IncidentKind
from kiva_stream.observability.incidents import Incidents
from kiva_stream.observability.logs import log
from kiva_stream.ports.state import Links
from kiva_stream.sync.contact_changes import ContactChange
from kiva_stream.sync.conviction import is_about_account
from kiva_stream.sync.desired_contact import fingerprint
from kiva_stream.sync.refused_fields import names_value, quotes_value
from kiva_stream.sync.request_kinds import NO_PERMISSION, RequestKind

ContactKind = RequestKind[
    ContactId, tuple[bytes, str]
]  # with the fingerprint that was refused, and the reply

ADVICE = "Look at the account's contact limit, its plan and the permissions of the key's user."
KINDS: Sequence[tuple[IncidentKind, str]] = (
    ("new_contacts", "new contacts"),
    ("contacts", "changes of contacts"),
)


class SentContacts(NamedTuple):
    """When contacts were sent, and by which kind of request: one that is accepted is known from then on."""

    at: float
    kinds: Mapping[ContactId, ContactKind]


class ContactRefusals:
    """The refusals of one account's contacts. Every coroutine raises CheckpointError."""

    def __init__(
        self,
        links: Links,
        incidents: Incidents,
        probe_every_s: float,
        *,
        before_probe: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint,
    ) -> None:
        self._links = links
        self._create, self._update = (
            ContactKind(
                incident,
                what,
                ADVICE,
                incidents=incidents,
                probe_every_s=probe_every_s,
                before_probe=before_probe,
            )
            for incident, what in KINDS
        )

    def __iter__(self) -> Iterator[ContactKind]:
        return iter((self._create, self._update))

    def sent(self, changes: Collection[ContactChange]) -> SentContacts:
        """Return what is to be known of contacts when the request is answered that is sent now."""
        return SentContacts(self._create.now(), {each.id: self._of(each) for each in changes})

    async def held(self, changes: Collection[ContactChange]) -> dict[ContactId, str]:
        """Return those of these contacts that must not be sent now, and why. Raises as RequestKind.held."""
        held: dict[ContactId, str] = {}
        for kind in self:
            if kind.why is not None:
                held |= await kind.held([each.id for each in changes if self._of(each) is kind])
        return held

    async def accepted(self, contacts: Collection[ContactId], sent: SentContacts) -> None:
        """Note that contacts were accepted together; record others that turn out to be refused."""
        for kind in self:
            kind.forget([each for each in contacts if sent.kinds[each] is not kind])
        for kind in self:
            mine = [each for each in contacts if sent.kinds[each] is kind]
            for contact, refusal in kind.accepted(mine, sent_at=sent.at).items():
                await self._links.record_refused(contact, *refusal)

    async def refused(self, change: ContactChange, reply: str) -> dict[ContactId, str]:
        """Note that a contact was refused alone, and record it; return it with the reply if it is held."""
        is_named = quotes_value(reply, change.desired) or (
            names_value(reply, change.desired) and not is_about_account(reply)
        )
        kind, refusal = self._carrying(change), (fingerprint(change.desired), reply)
        if not is_named:
            return kind.provisional(change.id, refusal, reply)
        kind.at_fault(change.id)
        await self._links.record_refused(change.id, *refusal)
        if not change.needs_import:
            log.warning("a change of a contact is refused; it stays as it was", contact=change.id, said=reply)
        return {}

    def forbidden(self, change: ContactChange, error: PermissionRefused) -> dict[ContactId, str]:
        """Note that a contact was refused alone by a 403, though the key is accepted; return it as held."""
        refusal = fingerprint(change.desired), str(error)
        return self._carrying(change).provisional(change.id, refusal, str(error), text=NO_PERMISSION)

    def forget(self, contact: ContactId) -> None:
        """Note that a contact has no change, or none that is to be sent."""
        for kind in self:
            kind.forget([contact])

    def convict_new(self, changes: Collection[ContactChange], reply: str) -> dict[ContactId, str]:
        """Pause new contacts, since no import is taken; return those of these contacts."""
        return self._create.convict([each.id for each in changes if not each.is_known], reply)

    def convict(self, changes: Collection[ContactChange], reply: str) -> dict[ContactId, str]:
        """Pause new contacts and changes of contacts; return those of these contacts that are held."""
        held: dict[ContactId, str] = {}
        for kind in self:
            held |= kind.convict([each.id for each in changes if self._of(each) is kind], reply)
        return held

    @property
    def has_due(self) -> bool:
        """Whether contacts are to be tried now."""
        return any(kind.has_due for kind in self)

    def take_due(self) -> set[ContactId]:
        """Return the contacts that are to be tried now, and those that turned out to be refused."""
        return set().union(*(kind.take_due() for kind in self))

    def pauses(self) -> list[str]:
        """Return why kinds of requests are paused."""
        return [kind.why for kind in self if kind.why is not None]

    def _carrying(self, change: ContactChange) -> ContactKind:
        """Return the kind of the request that carried a change; the other one forgets the contact."""
        for kind in self:
            if kind is not self._of(change):
                kind.forget([change.id])
        return self._of(change)

    def _of(self, change: ContactChange) -> ContactKind:
        """Return the kind of the request that carries a change."""
        return self._update if change.is_known else self._create
