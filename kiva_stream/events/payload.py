"""The eventdata of an event, `key=value; …; at=…; log=…` in at most 250 bytes of UTF-8, and a row's order."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from kiva_stream.model.event_catalog import CATALOG, EventLine, Pair
from kiva_stream.model.ids import OrderId
from kiva_stream.model.text_cleaning import clean
from kiva_stream.model.tracked_events import EVENTDATA_BYTES

_CENTS = 100
_MAX_BIGINT = 2**63 - 1
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,19}")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_OBJECT = msgspec.json.Decoder(dict[str, Any])
_PARTS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUE = msgspec.json.Decoder()
_BAD = object()  # a value that cannot be read
_JSON = msgspec.json.Encoder()
_UNREADABLE = (msgspec.DecodeError, UnicodeEncodeError, RecursionError)


class Pairs(NamedTuple):
    """The pairs of the catalogue that were found in a row's data, and the order that it names."""

    values: dict[str, str]  # by key, in the order of the catalogue
    bad: bool  # some of the data had the wrong type, and was left out
    order: OrderId | None = None


def pairs_of(event_line: EventLine, data: str | None, at: datetime) -> Pairs:
    """Read the pairs of an event line from a row's data, JSON text or None; it happened `at`, in UTC."""
    readers = _READERS[event_line.number]
    if data is None or not readers:
        return Pairs({}, bad=False)
    try:
        fields = _fields(data)
    except _UNREADABLE:
        return Pairs({}, bad=True)
    order, bad = _order_in(fields)
    values = {}
    for reader in readers:
        value = reader.read(fields, at)
        if value:
            values[reader.key] = value
        bad |= value is None
    return Pairs(values, bad, order)


def order_of(data: str) -> tuple[OrderId | None, bool]:
    """Return the order that a row's data, JSON text, names, and whether the data had the wrong type."""
    try:
        return _order_in(_fields(data))
    except _UNREADABLE:
        return None, True


def _fields(data: str) -> Mapping[str, object]:
    """Return the values in a row's data, by name. A value that cannot be read is _BAD."""
    try:
        return _OBJECT.decode(data)
    except _UNREADABLE:
        return {name: _value(part) for name, part in _PARTS.decode(data).items()}


def _value(part: msgspec.Raw) -> object:
    try:
        return _VALUE.decode(part)
    except _UNREADABLE:
        return _BAD


def _order_in(fields: Mapping[str, object]) -> tuple[OrderId | None, bool]:
    value = fields.get("order_id")
    if type(value) is int and 0 <= value <= _MAX_BIGINT:
        return OrderId(value), False
    text = clean(value) if isinstance(value, str) else "" if value is None else _written_number(value)
    if not text:
        return None, text is None
    number = int(text) if _WHOLE_NUMBER.fullmatch(text) else None
    if number is None or abs(number) > _MAX_BIGINT:
        return None, True
    return OrderId(number), False


def render(values: Mapping[str, str], *, by: str, at: datetime, log_id: int) -> tuple[str, bool]:
    """Return the eventdata, and whether a pair was left out to keep it within EVENTDATA_BYTES.

    `at` is in UTC; `by` is "" if it does not apply. `by`, `at` and `log` are never left out.
    """
    tail = f"by={by}; at={stamp(at)}; log={log_id}" if by else f"at={stamp(at)}; log={log_id}"
    pairs = [f"{key}={value}; " for key, value in values.items()]
    whole = "".join(pairs) + tail
    if (len(whole) if whole.isascii() else len(whole.encode())) <= EVENTDATA_BYTES:
        return whole, False
    return _fitting(pairs, EVENTDATA_BYTES - len(tail.encode())) + tail, True


def _fitting(pairs: list[str], room: int) -> str:
    """Return the pairs that fit into so many bytes. Each in turn is kept if it fits behind those kept."""
    kept = []
    for pair in pairs:
        size = len(pair.encode())
        if size <= room:
            kept.append(pair)
            room -= size
    return "".join(kept)


def stamp(at: datetime) -> str:
    """Return a moment in UTC as `2018-03-04T17:02:10Z`, with the fraction of the second cut off."""
    return f"{_JSON.encode(at)[1:20].decode()}Z"  # seven times faster than isoformat; strftime pads no year 1


class _Reader(NamedTuple):
    """Reads one pair from the data."""

    key: str
    field: str
    inner: tuple[str, ...]  # the path inside the field
    format: Callable[[object, datetime], str | None]  # None: of the wrong type

    def read(self, fields: Mapping[str, object], at: datetime) -> str | None:
        """Return the pair's value, "" if there is none, None if it has the wrong type."""
        value = fields.get(self.field)
        for key in self.inner:
            if value is None:
                break
            if not isinstance(value, dict):
                return None
            value = value.get(key)
        return "" if value is None else self.format(value, at)


def _text(value: object, _at: datetime) -> str | None:
    if isinstance(value, str):
        return clean(value).replace(";", ",")
    return _written_number(value)


def _number(value: object, _at: datetime) -> str | None:
    if isinstance(value, str):
        text = clean(value)
        return text if not text or _NUMBER.fullmatch(text) else None
    return _written_number(value)


def _written_number(value: object) -> str | None:
    return str(value) if type(value) in {int, float} else None  # isinstance would accept true and false


def _money(value: object, _at: datetime) -> str | None:
    if type(value) is not int:
        return None
    units, cents = divmod(abs(value), _CENTS)
    return f"{'-' if value < 0 else ''}{units}.{cents:02}"


def _minutes_since(value: object, at: datetime) -> str | None:
    try:
        since = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if since is None or since.tzinfo is None:
        return None
    return str(int((at.replace(microsecond=0) - since) / timedelta(minutes=1)))


def _month_day(value: object, _at: datetime) -> str | None:
    try:
        return date.fromisoformat(value).isoformat()[5:] if isinstance(value, str) else None
    except ValueError:
        return None


_FORMATS: dict[str, Callable[[object, datetime], str | None]] = {
    "text": _text,
    "number": _number,
    "money": _money,
    "minutes_since": _minutes_since,
    "month_day": _month_day,
}


def _reader(pair: Pair, example: object) -> _Reader:
    """Return the reader of a pair. If the example row has a number there, only numbers are read."""
    field, *inner = pair.path.split(".")
    for key in (field, *inner):
        example = example.get(key) if isinstance(example, dict) else None
    plain_number = pair.format == "text" and isinstance(example, int)
    return _Reader(pair.key, field, tuple(inner), format=_FORMATS["number" if plain_number else pair.format])


_READERS = {
    event_line.number: tuple(_reader(pair, event_line.data) for pair in event_line.eventdata)
    for event_line in CATALOG.events
}
