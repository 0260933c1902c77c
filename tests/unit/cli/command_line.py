"""A command line run as the process would run it, and what its fakes answer with."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from kiva_stream.commands.outcome_equation import Equation
from kiva_stream.model.outcomes import Outcome

TOKEN = "tok-4711-planted"
ENVIRON = {
    "KIVA_STREAM__SOURCE__DSN": f"postgresql://ro:{TOKEN}@db/shop",
    "KIVA_STREAM__SOURCE__SITE_ID": "1",
    "KIVA_STREAM__STATE__DSN": "postgresql://rw@db/shop",
    "KIVA_STREAM__ACTIVECAMPAIGN__API_URL": "https://account.api-us1.com",
    "KIVA_STREAM__ACTIVECAMPAIGN__API_TOKEN": TOKEN,
    "KIVA_STREAM__ACTIVECAMPAIGN__EVENT_ACTID": "123456",
    "KIVA_STREAM__ACTIVECAMPAIGN__EVENT_KEY": TOKEN,
}
COUNTS = {
    Outcome("delivered"): 500,
    Outcome("synced"): 200,
    Outcome("skipped", "noise"): 290,
    Outcome("skipped", "test"): 4,
    Outcome("dead", "no_email"): 6,
}
EQUATION = Equation.of(COUNTS, pending=10)
MOMENT = datetime(2018, 3, 4, 17, 2, 10, tzinfo=UTC)


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


def raising(error: BaseException) -> Callable[..., object]:
    async def work(*_: object, **__: object) -> None:
        raise error

    return work


def words(text: str) -> str:
    return " ".join(text.split())
