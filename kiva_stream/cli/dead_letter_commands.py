"""`dead-letters list`, `show`, `replay` and `discard`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from kiva_stream.cli.arguments import (
    AllOfThem,
    AsJson,
    OfCustomer,
    OfReason,
    Places,
    Yes,
    customer_of,
    place_of,
    reason_of,
)
from kiva_stream.cli.exit_codes import exit_by_signal
from kiva_stream.cli.shell import answer, is_on_terminal, run, shell_of

if TYPE_CHECKING:
    from kiva_stream.commands.dead_letters.selection import DeadLetterRequest


def list_dead_letters(
    context: typer.Context,
    reason: OfReason = None,
    customer: OfCustomer = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Show at most so many; else state.dead_letter_sample.")
    ] = None,
    oldest: Annotated[bool, typer.Option("--oldest", help="The oldest first, not the newest.")] = False,
    parked: Annotated[
        bool, typer.Option("--parked", help="List the entries that are parked, and what they wait for.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List them, and how many there are by reason.

    Refused orders are among them, as order:ID. It works beside a running process.
    """
    from kiva_stream.cli.rendering.dead_letters import render_list, render_parked
    from kiva_stream.commands.dead_letters import listing

    loaded, request = shell_of(context).load(), _request(reason, customer)
    shown = limit or loaded.state.dead_letter_sample
    if parked:
        if reason:
            raise typer.BadParameter("a parked entry has no --reason.")
        list_parked = partial(listing.list_parked, oldest_first=oldest)
        answer(run(list_parked, loaded, request.customer, shown), render_parked, as_json=as_json)
        return
    report = run(partial(listing.list_dead_letters, oldest_first=oldest), loaded, request, shown)
    answer(report, render_list, as_json=as_json)


def show_dead_letter(
    context: typer.Context,
    place: Annotated[str, typer.Argument(metavar="TXID:ID|order:ID", help="As the list names it.")],
    as_json: AsJson = False,
) -> None:
    """Show all about one, its entry as the shop has it now, and what can be done."""
    from kiva_stream.cli.rendering.dead_letters import render_details
    from kiva_stream.commands.dead_letters import details

    found = run(details.show_dead_letter, shell_of(context).load(), place_of(place))
    answer(found, render_details, as_json=as_json)


def replay_dead_letters(
    context: typer.Context,
    places: Places = None,
    reason: OfReason = None,
    customer: OfCustomer = None,
    all_: AllOfThem = False,
    as_json: AsJson = False,
) -> None:
    """Deliver them again, in the order of the log among themselves; try what is held of them now.

    When a process holds the site, that one does it. A discarded one has to be named by its place.
    """
    from kiva_stream.cli.rendering.dead_letters import render_replay
    from kiva_stream.commands.dead_letters import replay

    _require_one_way_of_naming(places, reason or customer, is_all=all_)
    request = _request(reason, customer, places)
    report = run(replay.replay, shell_of(context).load(), request)
    answer(report, render_replay, as_json=as_json)
    exit_by_signal(report.stopped_by)


def discard_dead_letters(
    context: typer.Context,
    places: Places = None,
    reason: OfReason = None,
    customer: OfCustomer = None,
    all_: AllOfThem = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Mark them: they stay dead, and need no attention.

    What is held of the places or the customer, or all that is, becomes dead, at its next try.
    """
    from kiva_stream.cli.rendering.dead_letters import render_discard
    from kiva_stream.commands.dead_letters import discard

    _require_one_way_of_naming(places, reason or customer, is_all=all_)
    request = _request(reason, customer, places)
    loaded = shell_of(context).load()
    if is_on_terminal() and not yes:
        count = run(discard.count_undiscarded, loaded, request)
        held = f" and {count.held:,} held records, which become dead" if count.held else ""
        if not typer.confirm(f"Discard {count.discarded:,} dead letters{held}?"):
            return
    answer(run(discard.discard, loaded, request), render_discard, as_json=as_json)


def _require_one_way_of_naming(places: list[str] | None, by: str | None, *, is_all: bool) -> None:
    if [bool(places), bool(by), is_all].count(True) != 1:
        raise typer.BadParameter("name places, or --reason and --customer, or --all.")


def _request(reason: str | None, customer: str | None, places: list[str] | None = None) -> DeadLetterRequest:
    from kiva_stream.commands.dead_letters.selection import DeadLetterRequest

    return DeadLetterRequest(
        reason=None if reason is None else reason_of(reason),
        customer=None if customer is None else customer_of(customer),
        places=tuple(map(place_of, places or ())),
    )
