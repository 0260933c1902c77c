"""Faults on purpose: what goes wrong on a path, how often, and how many times."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from fnmatch import fnmatchcase
from urllib.parse import unquote_plus

import msgspec


class FaultKind(StrEnum):
    """What the client sees. Only those named `-after` leave the request processed."""

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
        """Tell whether the request is processed all the same."""
        return self in {FaultKind.ERROR_AFTER, FaultKind.RESET_AFTER}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that goes wrong.

    `path` is `/event` or a path below `/api/3`, `*` in it standing for anything. `share` is the part of the
    requests on that path that it hits (0 to 1), `count` how many it hits at most (0: no bound). With
    `containing` it hits only requests whose decoded body holds that text, say `log=17`.
    """

    path: str
    kind: FaultKind
    share: float = 1.0
    count: int = 0
    containing: str = ""


def parse_fault(text: str) -> Fault:
    """Read `PATH:KIND:SHARE[:COUNT]`. Raises ValueError with a sentence that says what is wrong."""
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


def _holds(body: bytes, text: str) -> bool:
    sent = body.decode(errors="replace")
    return not text or text in sent or text in unquote_plus(sent)


class Faults:
    """The faults in force, drawn in their order: the first that hits is the one. Repeatable for a seed."""

    def __init__(self, faults: Iterable[Fault] = (), seed: int = 0) -> None:
        self.drawn: Counter[str] = Counter()
        self._random = random.Random(seed)  # noqa: S311  chance, not secrets
        self.set(faults)

    def set(self, faults: Iterable[Fault]) -> None:
        """Have these from now on, and no others."""
        self._faults = list(faults)
        self._left = [fault.count for fault in self._faults]

    def __bool__(self) -> bool:
        return bool(self._faults)

    def draw(self, path: str, body: bytes) -> FaultKind | None:
        """Return what goes wrong with a request, None when nothing does."""
        for index, fault in enumerate(self._faults):
            if self._hits(fault, path, body):
                self._use_up(index)
                self.drawn[fault.kind] += 1
                return fault.kind
        return None

    def _hits(self, fault: Fault, path: str, body: bytes) -> bool:
        return (
            fnmatchcase(path, fault.path)
            and _holds(body, fault.containing)
            and (fault.share == 1.0 or self._random.random() < fault.share)
        )

    def _use_up(self, index: int) -> None:
        if self._left[index] == 1:
            del self._faults[index], self._left[index]
        else:
            self._left[index] -= 1
