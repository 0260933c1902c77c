"""Listings of REST, read page by page to their end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sized
from typing import NamedTuple, TypeVar
from urllib.parse import urlencode

import msgspec

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.activecampaign.responses.rest import parse_rest

PAGE_ROWS = 100  # the most that ActiveCampaign lists at a time ("Pagination" in its API reference)
FULL_PAGES = frozenset({PAGE_ROWS, 20})  # 20: of a listing that ignores `limit` ("Pagination")
NO_QUERY: Mapping[str, str] = {}

T = TypeVar("T")
P = TypeVar("P", bound=Sized)


class Progress(NamedTuple):
    """How far a listing is read, after a page."""

    rows: int  # received so far
    page_rows: int
    total: int | None  # as the listing says; None: it does not say

    @property
    def is_end(self) -> bool:
        """Whether no page follows: by the total, otherwise by the length of the page.

        A page may have fewer rows than were asked for, so that its length says nothing beside a total.
        """
        if self.total is not None:
            return self.page_rows == 0 or self.rows >= self.total
        return self.page_rows not in FULL_PAGES


class _Meta(msgspec.Struct):
    total: int | None = None


class _Listing(msgspec.Struct):
    meta: _Meta | None = None


def total_rows(response: Response) -> int | None:
    """Return how many rows a listing has on all its pages, None if it does not say."""
    listing = response.decode(_Listing)
    return listing.meta.total if listing and listing.meta else None


async def read_rows(
    client: Client, name: str, rows: type[list[T]], *, query: Mapping[str, str] = NO_QUERY
) -> list[T]:
    """Return the rows of all pages of the listing of this name. Raises as `read_pages`."""
    return [row for page in await read_pages(client, name, rows, query=query, key=name) for row in page]


async def read_pages(
    client: Client, name: str, shape: type[P], *, query: Mapping[str, str] = NO_QUERY, key: str = ""
) -> list[P]:
    """Return all pages of the listing of this name, of each what `parse_rest` returns.

    A page that was read before shows that the listing has no pages. Raises as `Client.call` and `parse_rest`.
    """

    def parse(response: Response) -> tuple[P, int | None]:
        return parse_rest(response, shape, key=key), total_rows(response)

    pages: list[P] = []
    read = 0
    while True:
        asked = urlencode({**query, "limit": PAGE_ROWS, "offset": read})
        page, total = await client.call("GET", f"/{name}?{asked}", parse=parse)
        if page in pages:
            return pages
        pages.append(page)
        read += len(page)
        if Progress(read, len(page), total).is_end:
            return pages


async def read_listing_of_contact(
    client: Client,
    path: str,
    parse: Callable[[Response], list[T]],
    *,
    low_priority: bool,
    tries: float = math.inf,
    is_suspect: bool = False,
) -> list[T]:
    """Return all rows of a listing below a contact, of each page what `parse` returns.

    ActiveCampaign documents no pages of it. So none is asked for, unless its total says that there are more.
    Raises as `Client.call`.
    """

    def parse_page(response: Response) -> tuple[list[T], int | None]:
        return parse(response), total_rows(response)

    rows: list[T] = []
    while True:
        query = f"?{urlencode({'limit': PAGE_ROWS, 'offset': len(rows)})}" if rows else ""
        page, total = await client.call(
            "GET",
            path + query,
            parse=parse_page,
            low_priority=low_priority,
            tries=tries,
            is_suspect=is_suspect,
        )
        rows += page
        if not page or len(rows) >= (total or 0):
            return rows
