"""Left-out values: an optional field whose value is refused costs that value, not the contact."""

from __future__ import annotations

from kiva_stream.model.contacts import LeftOut
from kiva_stream.observability.logs import log
from kiva_stream.ports.state import Links
from kiva_stream.sync.contact_changes import ContactChange
from kiva_stream.sync.refused_fields import refused_field, value_hash


async def leave_out(links: Links, change: ContactChange, said: str) -> ContactChange | None:
    """Return a change without the optional field whose value a refusal names, None if it names none.

    The field is recorded, so that it is left out until its value changes: see `ContactChanges`.
    """
    field = refused_field(said, change.desired)
    if field is None:
        return None
    value = getattr(change.desired, field)
    refused = LeftOut(value_hash(change.id, value), reply=said.replace(value, f"[{field}]"))
    await links.record_left_out(change.id, field, refused)
    await links.count_notes({"value_left_out": 1})
    log.warning(
        "a value of a contact is refused; it is left out",
        contact=change.id,
        field=field,
        said=refused.reply,
    )
    return change.without(field)
