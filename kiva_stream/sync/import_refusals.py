"""Import refusals: which contacts an import is refused for, when the refusal names none.

| what is refused                               | then                                                       |
|-----------------------------------------------|------------------------------------------------------------|
| an import of several contacts                 | each half is sent                                          |
| one half, or both with different texts        | it is halved further, down to single contacts              |
| both halves with the same text, and none of   | contacts of it are sent with their address alone           |
| the import was accepted                       |                                                            |
| one of these, with a known text about the     | the account is at fault: plan, contact limit or list       |
| account, or `CONVICTING` different ones       |                                                            |
| the fields of one of these, all of them empty | a field is gone                                            |
| neither                                       | the contacts are at fault: it is halved further            |

One accepted contact with its address alone is enough. An address may be what is refused. So one refusal
whose text is not known says nothing about the account: it takes as many as in `conviction`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Container, Sequence
from typing import NamedTuple

import msgspec

from kiva_stream.errors import FieldRefused, KindRefused
from kiva_stream.model.contacts import DesiredContact
from kiva_stream.model.ids import ContactId
from kiva_stream.sync.contact_changes import ContactChange
from kiva_stream.sync.conviction import is_about_account
from kiva_stream.sync.isolation import halves
from kiva_stream.sync.refusal_texts import blanked

Changes = Sequence[ContactChange]

CONVICTING = 5  # different contacts
FIELD_GONE = "ActiveCampaign refuses a custom field of contacts; run `kiva-stream setup`"
_FIELDS = ("customer_id", "status", "next_delivery", "cancel_date", "birthday", "box_type")


class Refusal(NamedTuple):
    """An import that was refused, and ActiveCampaign's reply."""

    part: Changes
    said: str


# Sends imports; returns those that were refused without a row being named.
SendImports = Callable[[Sequence[Changes]], Awaitable[list[Refusal]]]
# Sends an import of one; returns the reply if it was refused.
SendProbe = Callable[[ContactChange], Awaitable[str | None]]


async def refused_alone(
    changes: Changes, send: SendImports, probe: SendProbe | None, *, accepted: Container[ContactId]
) -> list[Refusal]:
    """Send an import, and what it is divided into when it is refused; return the refusals of single contacts.

    `accepted` are the contacts of the imports that ActiveCampaign accepted so far. Without a `probe` the
    contacts are taken to be at fault. Raises KindRefused or FieldRefused if the account is, and what `send`
    and `probe` raise.
    """
    single: list[Refusal] = []
    refused = await send([changes])
    while refused:
        part, said = refused.pop()
        if len(part) == 1:
            single.append(Refusal(part, said))
            continue
        found = await send(halves(part))
        if probe and is_all_refused(part, found):
            await _require_account(part, probe)
            probe = None
        elif any(change.id in accepted for change in part):  # then the account is not at fault
            probe = None
        refused += found
    return single


def is_all_refused(part: Changes, refusals: Sequence[Refusal]) -> bool:
    """Return whether the halves of a part, all of it, were refused with the same text."""
    texts = {blanked(each.said) for each in refusals}
    return len(texts) == 1 and sum(len(each.part) for each in refusals) == len(part)


async def _require_account(part: Changes, probe: SendProbe) -> None:
    """Send contacts of a part with their address alone, until one is accepted, then with empty fields.

    Raises KindRefused or FieldRefused: see the module.
    """
    said: str | None = None
    tried = spread(part, CONVICTING)
    for change in tried:
        said = await probe(address_alone(change))
        if said is None:
            if said := await probe(with_empty_fields(change)):
                raise FieldRefused(f"{FIELD_GONE}: {said}")
            return
        if is_about_account(said):
            raise KindRefused(_account_refused(1, said))
    if said and len(tried) == CONVICTING:
        raise KindRefused(_account_refused(CONVICTING, said))


def _account_refused(count: int, said: str) -> str:
    contacts = "a contact with its" if count == 1 else f"{count} contacts with their"
    return (
        f"ActiveCampaign refuses imports, also of {contacts} address alone; look at the account's plan, its "
        f"contact limit and its list: {said}"
    )


def spread(part: Changes, count: int) -> list[ContactChange]:
    """Return so many changes of a part, or all if there are fewer, from its beginning to its end."""
    if len(part) <= count:
        return list(part)
    return [part[index * (len(part) - 1) // (count - 1)] for index in range(count)]


def address_alone(change: ContactChange) -> ContactChange:
    """Return the change without names and fields, with the place on the list and the tag.

    Of a contact that is not linked, names count as empty; what a linked one shows stays as it is.
    """
    name = "" if change.needs_import else None
    return _with(change, **dict.fromkeys(_FIELDS), first_name=name, last_name=name, phone=name)


def with_empty_fields(change: ContactChange) -> ContactChange:
    """Return the change without names, and with all fields empty."""
    return _with(address_alone(change), **dict.fromkeys(_FIELDS, ""))


def _with(change: ContactChange, **values: str | None) -> ContactChange:
    desired: DesiredContact = msgspec.structs.replace(change.desired, notes=(), **values)
    return change._replace(desired=desired)


def has_fields(change: ContactChange) -> bool:
    """Return whether a change has a value of a custom field."""
    return any(getattr(change.desired, field) is not None for field in _FIELDS)


class LastTries:
    """Counts the contacts that are sent by themselves because imports refuse them, by the refusal's text.

    Of one text `most` contacts are, at a time: a contact counts until an import takes it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_text: defaultdict[str, set[ContactId]] = defaultdict(set)

    def takes(self, contact: ContactId, said: str) -> bool:
        """Return whether a contact may be sent by itself, and count it then."""
        tried = self._by_text[blanked(said)]
        if contact not in tried and len(tried) >= self._most:
            return False
        tried.add(contact)
        return True

    def taken(self, contact: ContactId) -> None:
        """Note that an import took a contact."""
        for tried in self._by_text.values():
            tried.discard(contact)
