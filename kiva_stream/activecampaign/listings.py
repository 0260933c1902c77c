"""Listings of REST, read page by page to their end."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from functools import partial
from typing import TypeVar
from urllib.parse import urlencode

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.responses.rest import parse_rest

PAGE_ROWS = 100  # the most that ActiveCampaign lists at a time ("Pagination" in its API reference)
NO_QUERY: Mapping[str, str] = {}

T = TypeVar("T")
P = TypeVar("P", bound=Sized)


async def read_rows(
    client: Client, name: str, rows: type[list[T]], query: Mapping[str, str] = NO_QUERY
) -> list[T]:
    """Return the rows of all pages of the listing of this name. Raises as `read_pages`."""
    return [row for page in await read_pages(client, name, rows, query, key=name) for row in page]


async def read_pages(
    client: Client, name: str, shape: type[P], query: Mapping[str, str] = NO_QUERY, *, key: str = ""
) -> list[P]:
    """Return all pages of the listing of this name, of each what `parse_rest` returns.

    A page that was read before shows that the listing has no pages. Raises as `Client.call` and `parse_rest`.
    """
    parse = partial(parse_rest, shape=shape, key=key)
    pages: list[P] = []
    while True:
        asked = urlencode({**query, "limit": PAGE_ROWS, "offset": PAGE_ROWS * len(pages)})
        page = await client.call("GET", f"/{name}?{asked}", parse=parse)
        if page in pages:
            return pages
        pages.append(page)
        if len(page) < PAGE_ROWS:
            return pages
