"""Answers of ActiveCampaign for the tests of this folder, and the parsers by group."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from kiva_stream.activecampaign.responses.bulk_imports import parse_accepted_import, parse_import_report
from kiva_stream.activecampaign.responses.contacts import (
    parse_contact_page,
    parse_renamed_contact,
    parse_upserted_contact,
)
from kiva_stream.activecampaign.responses.events import parse_event
from kiva_stream.activecampaign.responses.orders import parse_query, parse_upserted_orders
from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.activecampaign.responses.rest import parse_rest
from kiva_stream.activecampaign.responses.tags import parse_added_tag, parse_removed_tag, parse_tag_links
from kiva_stream.activecampaign.responses.tracking_logs import parse_tracking_log
from kiva_stream.errors import DeliveryError
from kiva_stream.model.ids import OrderId

HTML = b"<html><body><h1>We are currently having some issues.</h1></body></html>"
DUPLICATE = {"errors": [{"title": "in use", "code": "duplicate", "source": {"pointer": "/data"}}]}


def answer(status: int, body: object = b"", retry_after: str | None = None) -> Response:
    return Response(status, body if isinstance(body, bytes) else msgspec.json.encode(body), retry_after)


def refused(message: str, status: int = 200) -> Response:
    return answer(status, {"success": 0, "message": message})


def is_accepted(parse: Callable[[Response], object], response: Response) -> bool:
    """Return whether an answer is taken for what was asked for."""
    try:
        parse(response)
    except DeliveryError:
        return False
    return True


def raised(parse: Callable[[Response], Any], response: Response) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        parse(response)
    return caught.value


class Thing(msgspec.Struct):
    id: int


parse_thing = partial(parse_rest, shape=Thing)
ROWS = (["ann@example.org", "Ann"], ["bob@example.org", "Bob"], ["eve@example.org", "Evelyn"])
parse_import = partial(parse_accepted_import, rows=ROWS)
parse_orders = partial(parse_upserted_orders, ids={OrderId(4), OrderId(5)})
TAG_PARSERS = [parse_tag_links, parse_added_tag, parse_removed_tag]
parse_things = partial(parse_query, shape=Thing)
REST_PARSERS = [
    *(
        parse_thing,
        parse_import,
        parse_import_report,
        parse_contact_page,
        parse_upserted_contact,
        parse_renamed_contact,
    ),
    *(*TAG_PARSERS, parse_tracking_log, parse_orders, parse_things),
]
ALL_PARSERS = [parse_event, *REST_PARSERS]
