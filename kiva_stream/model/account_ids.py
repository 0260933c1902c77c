"""ActiveCampaign's ids of what contacts and orders refer to."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from kiva_stream.model.week_tags import WeekTag


class IdKind(StrEnum):
    """What of an account may get other ids: it was deleted there, and `setup` created it anew."""

    CONNECTION = "connection"
    LIST = "list"
    FIELDS = "fields"
    TAGS = "tags"


class AccountIds(NamedTuple):
    """The ids that contacts and orders refer to."""

    list_id: int  # of the list `all customers`
    fields: Mapping[str, int]  # by the attribute of DesiredContact
    tags: Mapping[WeekTag, int]
    connection_id: int  # between the account and the shop, of its orders
    tag_names: Mapping[WeekTag, str] = {}  # as the account has them, where the letters are others

    def by_kind(self) -> Mapping[IdKind, Mapping[str, int]]:
        """Return the ids by kind and name."""
        return {
            IdKind.CONNECTION: {"": self.connection_id},
            IdKind.LIST: {"": self.list_id},
            IdKind.FIELDS: self.fields,
            IdKind.TAGS: {tag.value: number for tag, number in self.tags.items()},
        }


def changed_kinds(
    known: Mapping[IdKind, Mapping[str, int]], found: Mapping[IdKind, Mapping[str, int]]
) -> frozenset[IdKind]:
    """Return the kinds of which another id was found than is known. A kind of which none is known is not one.

    A name that is not known yet counts as another id.
    """
    return frozenset(kind for kind, ids in found.items() if known.get(kind, ids) != ids)
