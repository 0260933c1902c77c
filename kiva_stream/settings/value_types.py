"""The types of the settings' values, with their ranges and secrecy, and functions that read these back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, get_type_hints

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]
Timeout = Annotated[float, Meta(gt=0)]
# A title says what is expected where type and range alone do not.
Text = Annotated[str, Meta(min_length=1, title="a text that is not empty")]
# A key that is sent by http:// can be read on the way, except to this machine; a name such as localhost may
# be resolved to another one. A user and a password would be shown in the state and by `status`.
_PORT = r"(:(6553[0-5]|655[0-2]\d|65[0-4]\d{2}|6[0-4]\d{3}|[1-5]\d{4}|[1-9]\d{0,3}))?"
_HOST = rf"([\w.-]+|\[[0-9A-Fa-f:.]+\]){_PORT}"
_LOOPBACK = rf"(127(\.\d{{1,3}}){{3}}|\[::1\]){_PORT}"
Url = Annotated[
    str,
    Meta(
        pattern=rf"^(https://{_HOST}|http://{_LOOPBACK})(/\S*)?\Z",
        title="a URL that starts with https:// and has no user in it (http:// for 127.0.0.1 and [::1] alone)",
    ),
]
Dsn = Annotated[
    str,
    Meta(pattern=r"^postgres(ql)?://\S+\Z", title="postgresql://role@host/database", extra={"secret": True}),
]
Identifier = Annotated[
    str, Meta(pattern=r"^[a-z_][a-z0-9_]{0,62}\Z", title="a plain identifier (a-z, 0-9 and _, at most 63)")
]
Word = Annotated[str, Meta(pattern=r"^[!-~]+\Z", title="a text of visible ASCII characters, without blanks")]
# A key is sent in a header or a form: a line break in it would end the header.
SecretText = Annotated[Word, Meta(extra={"secret": True})]


def doc(text: str) -> Meta:
    """Return the meaning of a key, as the tables of the settings show it."""
    return Meta(description=text)


def hints(struct: type[msgspec.Struct]) -> Iterator[tuple[str, Any]]:
    """Return the fields of a Struct with their annotations, in order."""
    yield from get_type_hints(struct, include_extras=True).items()


def metas(hint: object) -> list[Meta]:
    """Return what an annotation says beside its type."""
    return [meta for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, Meta)]


def is_secret(hint: object) -> bool:
    """Return whether a value of this annotation must never show."""
    return any((meta.extra or {}).get("secret") for meta in metas(hint))
