"""A REST call as its handler gets it, and the response of a listing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec

from kiva_stream.sandbox.activecampaign.account import Account
from kiva_stream.sandbox.activecampaign.responses import Response, json_response

_Row = TypeVar("_Row")


class Call(msgspec.Struct, frozen=True):
    """A request that keeps the contract: the id in its path (0: none), its query, its decoded body."""

    path: str
    path_id: int
    query: Mapping[str, str]
    body: Mapping[str, Any]
    now: float  # when it arrived, in seconds since 1970
    most_rows: int = 0  # on a page, whatever the query asks for; 0: no bound

    @property
    def path_name(self) -> str:
        """The last step of its path, decoded."""
        return unquote(self.path.rpartition("/")[2])

    def page(self, rows: Sequence[_Row]) -> Sequence[_Row]:
        """Return the page that the query asks for; by default the first 20 rows."""
        offset, limit = int(self.query.get("offset", "0")), int(self.query.get("limit", "20"))
        return rows[offset : offset + min(limit, self.most_rows or limit)]


Handlers = Mapping[str, Callable[[Account, Call], Response]]  # by operation


def listing(name: str, rows: Sequence[object], total: int, **beside: object) -> Response:
    """Return one page of a listing. The total of all pages is a string, as ActiveCampaign sends it."""
    return json_response({name: rows, **beside, "meta": {"total": str(total)}})
