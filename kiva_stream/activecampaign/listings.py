"""Listings of REST, read page by page to their end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol, TypeVar
from urllib.parse import urlencode

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.responses.rest import parse_rest

PAGE_ROWS = 100  # the most that ActiveCampaign lists at a time ("Pagination" in its API reference)


class Page(Protocol):
    """A page of a listing."""

    @property
    def rows(self) -> Sequence[object]:
        """Return the rows of the page."""


P = TypeVar("P", bound=Page)


async def read_pages(client: Client, path: str, shape: type[P], query: dict[str, str]) -> list[P]:
    """Return all pages of a listing; a page that was read before shows that the listing has no pages.

    Raises as `Client.call` and `parse_rest`.
    """
    pages: list[P] = []
    while True:
        asked = urlencode({**query, "limit": PAGE_ROWS, "offset": PAGE_ROWS * len(pages)})
        page = await client.call("GET", f"{path}?{asked}", parse=partial(parse_rest, shape=shape))
        if page in pages:
            return pages
        pages.append(page)
        if len(page.rows) < PAGE_ROWS:
            return pages
