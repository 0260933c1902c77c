"""The events of an account in the order of their arrival, stored in columns.

An event takes about 30 bytes beside its data; as a Python object it would take ten times as much.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple


class ReceivedEvent(NamedTuple):
    """One event as it arrived."""

    seq: int  # sequence number in the order of arrival, from 1
    received_at: float  # seconds since 1970
    contact_id: int
    name: str
    eventdata: str


class StrayEvent(NamedTuple):
    """An event of an address that no contact had. ActiveCampaign answers success and shows it nowhere."""

    received_at: float
    email: str
    name: str
    eventdata: str


class EventLog:
    """All events of one account."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._name_ids: dict[str, int] = {}
        self._name = array("H")
        self._contact = array("I")
        self._received_at = array("d")
        self._end = array("Q", [0])  # where each event's data ends, after the 0 at which the first begins
        self._data = bytearray()
        self.longest_bytes = 0

    def add(self, received_at: float, contact_id: int, *, name: str, eventdata: str) -> int:
        """Add an event. Return its sequence number."""
        data = eventdata.encode()
        self.longest_bytes = max(self.longest_bytes, len(data))
        self._name.append(self._name_id(name))
        self._contact.append(contact_id)
        self._received_at.append(received_at)
        self._data += data
        self._end.append(len(self._data))
        return len(self._name)

    def _name_id(self, name: str) -> int:
        known = self._name_ids.get(name)
        if known is None:
            known = self._name_ids[name] = len(self._names)
            self._names.append(name)
        return known

    def __len__(self) -> int:
        return len(self._name)

    def __getitem__(self, seq: int) -> ReceivedEvent:
        """Return the event of a sequence number. Raises IndexError when there is none."""
        if not 0 < seq <= len(self):
            raise IndexError(seq)
        index = seq - 1
        data = self._data[self._end[index] : self._end[seq]].decode()
        return ReceivedEvent(
            seq=seq,
            received_at=self._received_at[index],
            contact_id=self._contact[index],
            name=self._names[self._name[index]],
            eventdata=data,
        )

    def __iter__(self) -> Iterator[ReceivedEvent]:
        return (self[seq] for seq in range(1, len(self) + 1))

    def received_at(self, seq: int) -> float:
        """Return when the event of a sequence number arrived, without decoding its data."""
        return self._received_at[seq - 1]

    def count_by_name(self) -> dict[str, int]:
        """Return how many events of each name have arrived."""
        return {self._names[name]: count for name, count in Counter(self._name).items()}

    @property
    def size_bytes(self) -> int:
        """The memory that the events take."""
        columns = (self._name, self._contact, self._received_at, self._end)
        return sum(len(column) * column.itemsize for column in columns) + len(self._data)
