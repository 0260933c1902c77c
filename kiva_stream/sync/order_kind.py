"""Orders as a kind of request: it is paused while ActiveCampaign refuses all orders."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio.lowlevel

from kiva_stream.model.ids import OrderId
from kiva_stream.model.orders import SentOrder
from kiva_stream.observability.incidents import Incidents
from kiva_stream.sync.request_kinds import RequestKind

OrderKind = RequestKind[OrderId, SentOrder]  # of an order that turns out to be refused, that is recorded


def order_kind(
    incidents: Incidents,
    probe_every_s: float,
    before_probe: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint,
) -> OrderKind:
    """Return the kind of one account's orders."""
    return OrderKind(
        "orders",
        "orders",
        "Look at the plan, run `kiva-stream check`, and `setup` if the connection is gone.",
        incidents=incidents,
        probe_every_s=probe_every_s,
        before_probe=before_probe,
    )
