"""Answers about the tags of a contact. The link of a tag to a contact has an id of its own."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.activecampaign.responses.rest import parse_by_contact_id
from kiva_stream.errors import ContactGone


class TagLink(msgspec.Struct):
    """A tag on a contact; `id` is that of the link."""

    id: int
    tag: int


class _EmptyObject(msgspec.Struct, forbid_unknown_fields=True):
    """The whole answer to a deletion."""


def parse_tag_links(response: Response) -> list[TagLink]:
    """Return the tags on a contact. Raises as `parse_by_contact_id`."""
    return parse_by_contact_id(response, list[TagLink], key="contactTags")


def parse_added_tag(response: Response) -> int:
    """Return the id of the link of a tag that was added or there. Raises as `parse_by_contact_id`."""
    return parse_by_contact_id(response, TagLink, key="contactTag").id


def parse_removed_tag(response: Response) -> None:
    """Return if the tag is removed, or a 404 says that its link is gone; else as `parse_by_contact_id`."""
    with suppress(ContactGone):
        parse_by_contact_id(response, _EmptyObject)
