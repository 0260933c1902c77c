"""Answers about contacts: look-ups, listings, a contact written alone."""

from __future__ import annotations

import msgspec

from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.activecampaign.responses.rest import Duplicate, parse_by_contact_id, parse_rest
from kiva_stream.errors import AddressTaken, Rejected
from kiva_stream.model.ids import AcId, Email


class _Contact(msgspec.Struct):
    """A contact; one that was created from a telephone number has no address."""

    id: AcId
    email: str | None = None

    @property
    def address(self) -> Email:
        return Email((self.email or "").strip().lower())


def parse_contact_lookup(response: Response, email: Email) -> AcId | None:
    """Return the id of the contact of `email`, None if there is none. Raises TryLater, AccountRefused.

    Rejected means that ActiveCampaign does not take the text as an address, so that no contact has it.
    """
    try:
        contacts = parse_rest(response, list[_Contact], key="contacts")
    except Rejected:
        return None
    return next((contact.id for contact in contacts if contact.address == email), None)


def parse_contact_page(response: Response) -> dict[Email, AcId]:
    """Return the contacts of a listing by address ("" without one), in the order of the listing.

    Of several contacts without an address the last is kept. Raises as `parse_rest`.
    """
    contacts = parse_rest(response, list[_Contact], key="contacts")
    return {contact.address: contact.id for contact in contacts}


def parse_upserted_contact(response: Response) -> AcId:
    """Return the id of the contact that was created or updated. Raises as `parse_rest`."""
    return parse_rest(response, _Contact, key="contact").id


def parse_renamed_contact(response: Response) -> None:
    """Return if the contact has its new address. Raises AddressTaken, otherwise as `parse_by_contact_id`."""
    try:
        parse_by_contact_id(response, _Contact, key="contact")
    except Duplicate as refusal:
        raise AddressTaken("another contact has the address", refusal.reply) from None
