"""Faults on purpose: what goes wrong on a path, for which share of the requests, and how many times."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from fnmatch import fnmatchcase
from urllib.parse import unquote_plus

import msgspec


class FaultKind(StrEnum):
    """What the client sees. A request is processed only with the kinds that end in `-after`."""

    ERROR_BEFORE = "500-before"
    ERROR_AFTER = "500-after"
    HTML_503 = "html-503"
    HTML_200 = "html-200"
    THROTTLED = "429"
    FORBIDDEN = "403"
    LAPSED = "402"
    REFUSED_EVENT = "success-0"  # HTTP 200 with success:0 and a message of no known meaning
    HANG = "hang"  # no answer until the sandbox stops
    RESET_BEFORE = "reset-before"
    RESET_AFTER = "reset-after"

    @property
    def processed(self) -> bool:
        """Whether the request is processed nevertheless."""
        return self in {FaultKind.ERROR_AFTER, FaultKind.RESET_AFTER}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that goes wrong.

    `path` is `/event` or a path below `/api/3`, in which `*` stands for anything. The fault strikes a `share`
    (0 to 1) of the requests on that path, at most `count` of them (0: no bound). With `containing`, it
    strikes only requests whose decoded body contains that text, say `log=17`.
    """

    path: str
    kind: FaultKind
    share: float = 1.0
    count: int = 0
    containing: str = ""


def parse_fault(text: str) -> Fault:
    """Parse `PATH:KIND:SHARE[:COUNT]`. Raises ValueError with a sentence that names the problem."""
    parts = text.split(":")
    if len(parts) not in {3, 4}:
        raise ValueError(f"fault {text!r} is not PATH:KIND:SHARE[:COUNT], as in /event:500-after:0.05:10")
    path, kind, share = parts[:3]
    if path != "*" and not path.startswith("/"):
        raise ValueError(f"fault {text!r}: the path {path!r} must be * or begin with /")
    count = _count(text, parts[3]) if parts[3:] else 0
    return Fault(path=path, kind=_kind(text, kind), share=_share(text, share), count=count)


def _kind(text: str, kind: str) -> FaultKind:
    if kind not in set(FaultKind):
        raise ValueError(f"fault {text!r}: {kind!r} is none of {', '.join(FaultKind)}")
    return FaultKind(kind)


def _share(text: str, share: str) -> float:
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if not 0.0 < value <= 1.0:
        raise ValueError(f"fault {text!r}: the share {share!r} must be above 0 and at most 1")
    return value


def _count(text: str, count: str) -> int:
    if not (count.isdecimal() and int(count) > 0):
        raise ValueError(f"fault {text!r}: the count {count!r} must be a whole number above 0")
    return int(count)


def _contains(body: bytes, text: str) -> bool:
    sent = body.decode(errors="replace")
    return not text or text in sent or text in unquote_plus(sent)


class Faults:
    """The faults in force. A request gets the first of them that strikes; a seed makes that repeatable."""

    def __init__(self, faults: Iterable[Fault] = (), seed: int = 0) -> None:
        self.drawn: Counter[str] = Counter()
        self._random = random.Random(seed)  # noqa: S311  chance, not secrets
        self.set(faults)

    def set(self, faults: Iterable[Fault]) -> None:
        """Replace the faults in force."""
        self._faults = list(faults)
        self._left = [fault.count for fault in self._faults]

    def __bool__(self) -> bool:
        return bool(self._faults)

    def draw(self, path: str, body: bytes) -> FaultKind | None:
        """Return what goes wrong with a request, or None if nothing does."""
        for index, fault in enumerate(self._faults):
            if self._strikes(fault, path, body):
                self._use_up(index)
                self.drawn[fault.kind] += 1
                return fault.kind
        return None

    def _strikes(self, fault: Fault, path: str, body: bytes) -> bool:
        return (
            fnmatchcase(path, fault.path)
            and _contains(body, fault.containing)
            and (fault.share == 1.0 or self._random.random() < fault.share)
        )

    def _use_up(self, index: int) -> None:
        if self._left[index] == 1:
            del self._faults[index], self._left[index]
        else:
            self._left[index] -= 1
