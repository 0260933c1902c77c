"""Finds the event line of an action or of a legacy text: the event catalogue as look-up tables."""

from __future__ import annotations

import re
from collections import defaultdict
from operator import itemgetter

from kiva_stream.model.event_catalog import CATALOG, EventLine

CANCELLED_BY_CUSTOMER = 16  # event lines 16 and 35 are one event
CANCELLED_BY_SHOP = 35

_BY_ACTION = {action: event_line for event_line in CATALOG.events for action in event_line.actions}
_SYNC_ONLY = frozenset(CATALOG.sync_only)
_NOISE = frozenset(code for code in CATALOG.noise if not code.endswith(".*"))
_NOISE_FAMILIES = tuple(code.removesuffix("*") for code in CATALOG.noise if code.endswith(".*"))

# A legacy text begins with one of three actors (`legacy_prefix` of events.json): none, the name of the
# customer, or `Customer #5123 (Ann Lee)`.
_NUMBERED_CUSTOMER = re.compile(r"customer #([0-9]{1,19}) \([^()]*(?:\([^()]*\)[^()]*)*\) +", re.IGNORECASE)
_NAME_WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|['.-])*")
_NAME_PARTICLES = frozenset(
    ["van", "der", "den", "ter", "de", "von", "da", "del", "la", "le", "el", "dos", "das", "bin"]
)
_MAX_NAME_WORDS = 4

# Event line 35 has no pattern of its own in the catalogue: a cancellation with a name was made by the shop.
_CANCELLED_BY_NAME = r"customer cancell?ed by \S"
_OPTIONAL_START, _OPTIONAL_LETTER = "(?:customer )?", "c"
_STARTS_WITH_A_LETTER = re.compile(r"[a-z](?![?*{|])")


def _by_letter() -> dict[str, list[tuple[re.Pattern[str], EventLine]]]:
    """Return the patterns by the letters with which their matches can begin."""
    found: defaultdict[str, list[tuple[re.Pattern[str], EventLine]]] = defaultdict(list)
    for event_line in CATALOG.events:
        for pattern in event_line.legacy if event_line.number != CANCELLED_BY_SHOP else (_CANCELLED_BY_NAME,):
            rest = pattern.removeprefix(_OPTIONAL_START)
            if not _STARTS_WITH_A_LETTER.match(rest):
                raise ValueError(f"cannot tell with which letter {pattern!r} begins")
            letters = {rest[0]} if rest == pattern else {rest[0], _OPTIONAL_LETTER}
            for letter in letters:
                found[letter].append((re.compile(pattern), event_line))
    return dict(found)


_PATTERNS = _by_letter()


def event_line_of_action(action: str) -> EventLine | None:
    """Return the event line of a structured row's action, or None."""
    return _BY_ACTION.get(action)


def is_noise(action: str) -> bool:
    """Return whether an action is known to be noise. The action of an event is not."""
    return (action in _NOISE or action.startswith(_NOISE_FAMILIES)) and action not in _BY_ACTION


def is_sync_only(action: str) -> bool:
    """Return whether an action is known to change a customer without being an event."""
    return action in _SYNC_ONLY


def event_line_of_text(text: str, name: str = "") -> EventLine | None:
    """Return the event line of a legacy text, or None.

    `name` is the customer's as stored, "" if it is not known. A pattern matches only at the start of the text
    or right after the actor. The longest match of all event lines wins.
    """
    matches = [
        (match.end(), event_line)
        for start in map(str.lower, _after_actor(text.strip(), name))
        for pattern, event_line in _PATTERNS.get(start[:1], ())
        if (match := pattern.match(start))
    ]
    return max(matches, key=itemgetter(0))[1] if matches else None


def customer_number(text: str) -> int | None:
    """Return the id in the actor of a legacy text that begins with `Customer #5123 (Ann Lee)`, or None."""
    actor = _NUMBERED_CUSTOMER.match(text.lstrip())
    return int(actor[1]) if actor else None


def _after_actor(text: str, name: str) -> set[str]:
    """Return the text as it is, and what follows each actor that it may begin with."""
    numbered = _NUMBERED_CUSTOMER.match(text)
    if numbered is not None:
        return {text, text[numbered.end() :]}
    named = (_after_stored_name(text, name), _after_name_words(text))
    return {text, *(rest for rest in named if rest[:1].islower())}


def _after_stored_name(text: str, name: str) -> str:
    words = name.split()
    if not words or not text.startswith(words[0]):
        return ""
    head = text.split(maxsplit=len(words))
    return head[-1] if head[:-1] == words else ""


def _after_name_words(text: str) -> str:
    """Return what follows up to four name words: lower-case particles, else words with a capital."""
    for _ in range(_MAX_NAME_WORDS):
        word, _, rest = text.partition(" ")
        if not _is_name_word(word):
            break
        text = rest.lstrip(" ")
    return text


def _is_name_word(word: str) -> bool:
    return word in _NAME_PARTICLES or (word[:1].isupper() and _NAME_WORD.fullmatch(word) is not None)
