"""A REST call: what its handler gets, and how a listing is answered a page at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from kiva_stream.sandbox.activecampaign.account import Account
from kiva_stream.sandbox.activecampaign.replies import Reply, json_reply

_Row = TypeVar("_Row")


class Call(msgspec.Struct, frozen=True):
    """A request to contract: the id in its path (0: none), its query, its decoded body, when it came."""

    path_id: int
    query: Mapping[str, str]
    body: Mapping[str, Any]
    now: float  # seconds since 1970

    def page(self, rows: Sequence[_Row]) -> Sequence[_Row]:
        """Return the page asked for: 20 rows from the first when nothing is said."""
        offset = int(self.query.get("offset", "0"))
        return rows[offset : offset + int(self.query.get("limit", "20"))]


Handlers = Mapping[str, Callable[[Account, Call], Reply]]  # by operation


def listing(name: str, rows: Sequence[object], total: int, **beside: object) -> Reply:
    """Return one page of a listing; the total of all pages is text, as ActiveCampaign sends it."""
    return json_reply({name: rows, **beside, "meta": {"total": str(total)}})
