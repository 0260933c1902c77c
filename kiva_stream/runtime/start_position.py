"""The start position: where a run begins to read the log, by the checkpoint or by its arguments."""

from __future__ import annotations

from datetime import UTC, date, datetime

from kiva_stream.errors import SettingsError
from kiva_stream.model.bounds import Bound, bound_text
from kiva_stream.model.checkpoint import SavedCheckpoint
from kiva_stream.model.positions import DAY1, HighWaterMark, Position
from kiva_stream.runtime.shop import Shop

FAR = datetime.max.replace(tzinfo=UTC)


def all_up_to(position: Position) -> HighWaterMark:
    """Return the mark at a position that the log was read to before: no entry below it is too young."""
    return HighWaterMark(position, FAR)


async def start_of(
    shop: Shop, saved: SavedCheckpoint | None, *, since: Bound | None, events_since: date | None
) -> SavedCheckpoint:
    """Return the checkpoint from which a run reads on: the saved one, or else one that begins at `since`.

    Raises SettingsError when the arguments differ from those of the checkpoint, or both are missing.
    """
    if saved is not None:
        _require_same_order(saved, horizon=shop.horizon.is_used)
    moment = None if events_since is None else await shop.positions.midnight(events_since)
    text = None if since is None else bound_text(since)
    if saved is None:
        if since is None or text is None:
            raise SettingsError("There is no checkpoint to go on from: say --since day1, DATE or POSITION.")
        return SavedCheckpoint(
            since=text, events_since=moment, watermark=await _below(shop, since), horizon=shop.horizon.is_used
        )
    _require_same("--since", text, saved.since)
    _require_same("--events-since", moment, saved.events_since)
    return saved


async def mark_of(shop: Shop, start: SavedCheckpoint, until: Bound | None) -> HighWaterMark:
    """Return the mark up to which a backfill reads: the newest entry, or the one before a bound.

    Raises SettingsError.
    """
    mark = await shop.horizon.high_water_mark()
    if until is None:
        return mark
    last = await _below(shop, until)
    if last < start.watermark:
        raise SettingsError(
            f"--until {bound_text(until)} ends before {start.watermark}, from where this backfill reads on: "
            "give a later one, or leave it out."
        )
    return mark._replace(position=min(mark.position, last))


def _require_same_order(saved: SavedCheckpoint, *, horizon: bool) -> None:
    if saved.horizon != horizon:
        began, now = ("with", "off") if saved.horizon else ("without", "on")
        raise SettingsError(
            f"The log was read {began} a horizon up to the checkpoint, and source.horizon is {now}: set it "
            f"back, or change how the log is read with `rewind`."
        )


def _require_same(option: str, given: object, kept: object) -> None:
    if given is not None and given != kept:
        raise SettingsError(
            f"{option} {given} is not what the checkpoint began with ({kept or 'none'}): "
            "leave it out to go on, or begin elsewhere with `rewind`."
        )


async def _below(shop: Shop, bound: Bound) -> Position:
    """Return the position just below a bound. Raises SettingsError."""
    if isinstance(bound, Position):
        if bound.txid and not shop.horizon.is_used:
            raise SettingsError(
                f"{bound} has a transaction id, and source.horizon is off: positions are 0:ID then."
            )
        position = bound
    elif first := await shop.positions.first_since(await shop.positions.midnight(bound)):
        position = first
    else:
        return (await shop.horizon.high_water_mark()).position
    return position if position == DAY1 else Position(position.txid, position.id - 1)
