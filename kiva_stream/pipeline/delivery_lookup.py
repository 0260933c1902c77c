"""Look-ups: whether an event whose answer was lost is in its contact's tracking log."""

from __future__ import annotations

from kiva_stream.errors import PermissionRefused, Rejected
from kiva_stream.model.contacts import Contact
from kiva_stream.model.ids import AcId
from kiva_stream.model.tracked_events import mark_of, shows
from kiva_stream.observability.logs import log
from kiva_stream.ports.destination import Contacts, TrackingLogs
from kiva_stream.ports.state import Links


class TrackingLogLookup:
    """Implements the port DeliveryLookup. Every call raises AccountRefused, CheckpointError."""

    def __init__(self, links: Links, contacts: Contacts, logs: TrackingLogs) -> None:
        self._links = links
        self._contacts = contacts
        self._logs = logs

    async def has_arrived(self, contact: Contact, name: str, eventdata: str) -> bool | None:
        """Return whether the contact's log shows this event; None if there is no log, or it is refused.

        An event is identified by its name, its `at=` and its last `log=`.
        """
        try:
            ac_id = await self._id_of(contact)
            if ac_id is None:
                return None
            events = await self._logs.events(ac_id)
        except (Rejected, PermissionRefused) as error:  # the contact may be gone, or a permission missing
            said = error.reply if isinstance(error, Rejected) else str(error)
            log.warning("an event cannot be looked up", contact=contact.id, said=said)
            return None
        wanted = mark_of(eventdata)
        return wanted is not None and any(
            event.name == name and shows(event.eventdata, wanted) for event in events
        )

    async def _id_of(self, contact: Contact) -> AcId | None:
        """Return ActiveCampaign's id of a contact: the one in the state, else that of its address."""
        (linked,) = await self._links.records([contact.id])
        return linked.ac_id or await self._contacts.find(contact.email)
