"""Options that several commands take, and the values that their texts mean.

A text that means nothing raises typer.BadParameter, which is exit code 2 and names the option.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated

import typer

from kiva_stream.model.addresses import parse_email
from kiva_stream.model.bounds import Bound, Place, parse_bound, parse_date, parse_place
from kiva_stream.model.ids import CustomerId, Email
from kiva_stream.model.outcomes import DEAD_REASONS, Reason
from kiva_stream.model.positions import Position

BOUND = "day1|DATE|POSITION"
MAX_BIGINT = 2**63 - 1

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask first.")]
CustomerOption = Annotated[str, typer.Option(metavar="ID", help="The customer's id at the shop.")]

# --- of `plan` and `backfill` ---

Since = Annotated[str | None, typer.Option(metavar=BOUND, help="Where the history begins.")]
Until = Annotated[str | None, typer.Option(metavar=BOUND, help="Where it ends; else now.")]
EventsSince = Annotated[str | None, typer.Option(metavar="DATE", help="Older entries become no events.")]
Wait = Annotated[
    bool, typer.Option("--wait", help="Wait while another process holds the site, and then go on.")
]

# --- of `dead-letters` ---

OfReason = Annotated[
    str | None, typer.Option("--reason", metavar="REASON", help=f"One of: {', '.join(DEAD_REASONS)}.")
]
OfCustomer = Annotated[
    str | None, typer.Option("--customer", metavar="ID", help="Those of this customer's contact.")
]
Places = Annotated[list[str] | None, typer.Argument(metavar="[TXID:ID|order:ID]...", help="Just these.")]
AllOfThem = Annotated[bool, typer.Option("--all", help="All that are not discarded, and all that is held.")]


def bound_of(option: str, text: str | None) -> Bound | None:
    """Return the bound of a text."""
    try:
        return None if text is None else parse_bound(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint=option) from None


def position_of(option: str, text: str) -> Position:
    """Return the position of a text; that of `day1` is the lowest there is."""
    bound = bound_of(option, text)
    if not isinstance(bound, Position):
        raise typer.BadParameter(f"{text!r} is neither day1 nor a position (TXID:ID).", param_hint=option)
    return bound


def date_of(option: str, text: str | None) -> date | None:
    """Return the date of a text."""
    try:
        return None if text is None else parse_date(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a date (YYYY-MM-DD).", param_hint=option) from None


def customer_of(text: str) -> CustomerId:
    """Return the customer of the option `--customer`."""
    if not re.fullmatch(r"-?[0-9]{1,19}", text) or abs(int(text)) > MAX_BIGINT:
        raise typer.BadParameter(f"{text!r} is not the id of a customer (a number).", param_hint="--customer")
    return CustomerId(int(text))


def reason_of(text: str) -> Reason:
    """Return the reason of the option `--reason`."""
    if text not in DEAD_REASONS:
        raise typer.BadParameter(f"{text!r} is none of: {', '.join(DEAD_REASONS)}.", param_hint="--reason")
    return Reason(text)


def address_of(option: str, text: str) -> Email:
    """Return the e-mail address of a text, normalised."""
    parsed = parse_email(text)
    if parsed.email is None or parsed.several:
        raise typer.BadParameter(f"{text!r} is not one e-mail address.", param_hint=option)
    return parsed.email


def place_of(text: str) -> Place:
    """Return the place of a dead letter."""
    try:
        return parse_place(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}; an order is order:ID.") from None
