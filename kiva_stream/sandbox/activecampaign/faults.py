"""Faults on purpose: what goes wrong, for which requests, for which share of them, and how many times."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping
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
    ANSWER_BEFORE = "answer-before"  # the fault's own status, headers and text; an empty 200 without them
    ANSWER_AFTER = "answer-after"
    HANG = "hang"  # no answer until the sandbox stops
    HANG_AFTER = "hang-after"
    RESET_BEFORE = "reset-before"
    RESET_AFTER = "reset-after"

    @property
    def processed(self) -> bool:
        """Whether the request is processed nevertheless."""
        return self.endswith("-after")


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that goes wrong. Making one raises ValueError when it contradicts itself.

    `path` is `/event` or a path below `/api/3`, in which `*` stands for anything. The fault strikes a `share`
    (0 to 1) of the requests on that path, at most `count` of them (0: no bound). With a `method` it strikes
    no other; with `containing`, only requests whose decoded body contains that text, say `log=17`; with
    `matching`, only those in whose decoded body that regular expression is found. The two answer kinds answer
    with `status`, `headers` and `text`. Faults are lifted by `name`.
    """

    path: str
    kind: FaultKind
    share: float = 1.0
    count: int = 0
    method: str = ""
    containing: str = ""
    matching: str = ""
    status: int = 200
    headers: Mapping[str, str] = {}
    text: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        try:
            re.compile(self.matching)
        except re.error as error:
            raise ValueError(f"matching {self.matching!r} is no regular expression: {error}") from None
        own_answer = self.kind in {FaultKind.ANSWER_BEFORE, FaultKind.ANSWER_AFTER}
        if not own_answer and (self.status, self.headers, self.text) != (200, {}, ""):
            raise ValueError(
                f"status, headers and text are for answer-before and answer-after, not {self.kind}"
            )


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


def _has(body: bytes, fault: Fault) -> bool:
    if not fault.containing and not fault.matching:
        return True
    sent = body.decode(errors="replace")
    return any(
        fault.containing in text and re.search(fault.matching, text) for text in (sent, unquote_plus(sent))
    )


class Faults:
    """The faults in force. A request gets the first of them that strikes; a seed makes that repeatable."""

    def __init__(self, faults: Iterable[Fault] = (), seed: int = 0) -> None:
        self.drawn: Counter[str] = Counter()
        self._random = random.Random(seed)  # noqa: S311  chance, not secrets
        self.set(faults)

    def set(self, faults: Iterable[Fault]) -> None:
        """Replace the faults in force."""
        self._in_force = [(fault, fault.count) for fault in faults]

    def lift(self, name: str) -> None:
        """Lift the faults of that name. Requests that hang already go on hanging."""
        self._in_force = [each for each in self._in_force if each[0].name != name]

    def __bool__(self) -> bool:
        return bool(self._in_force)

    def draw(self, method: str, path: str, body: bytes) -> Fault | None:
        """Return what goes wrong with a request, or None if nothing does."""
        for index, (fault, left) in enumerate(self._in_force):
            if self._strikes(fault, method=method, path=path, body=body):
                self._in_force[index : index + 1] = [] if left == 1 else [(fault, left - 1)]
                self.drawn[fault.kind] += 1
                return fault
        return None

    def _strikes(self, fault: Fault, *, method: str, path: str, body: bytes) -> bool:
        return (
            fnmatchcase(path, fault.path)
            and fault.method in {"", method}
            and _has(body, fault)
            and (fault.share == 1.0 or self._random.random() < fault.share)
        )
