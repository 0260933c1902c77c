"""Dead letters, and requests to replay them."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from kiva_stream.model.ids import CustomerId
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import Position


class DeadLetter(NamedTuple):
    """An entry that could not be delivered, and why."""

    position: Position
    why: Reason
    customer: CustomerId | None
    attempts: int = 0  # 0: nothing was sent
    reply: str = ""  # what ActiveCampaign said, without secrets and addresses


class ReplayRequest(NamedTuple):
    """A dead letter that is to be replayed: its reason, and when the replay was asked for."""

    why: Reason
    asked_at: datetime
