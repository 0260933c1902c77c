"""The contract of the API: its operations, and the schemas of their requests.

It is read from `contract/openapi.json` beside this file, and all validators are compiled once. Problems of a
request are returned; `responses` decides how they are answered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import msgspec
from jsonschema import Draft202012Validator

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"


class Problem(NamedTuple):
    """One thing wrong with a request: its path (`contacts`, 3, `email`), the schema's rule, and a text."""

    where: tuple[str | int, ...]
    rule: str
    text: str


class Parameter(NamedTuple):
    """A parameter of the query string."""

    validator: Any
    is_integer: bool
    required: bool

    def problems(self, name: str, text: str) -> Iterator[Problem]:
        """Yield the problems of a value of this parameter."""
        value = int(text) if self.is_integer and text.isdecimal() else text
        return _problems(self.validator, value, (name,))


class Operation(msgspec.Struct, frozen=True):
    """One operation of the API: a method on a path."""

    id: str
    pattern: re.Pattern[str] | None  # of a path with an id or a name in it
    parameters: Mapping[str, Parameter]
    content_type: str  # of the body; "" when there is none
    body: Any  # its validator, or None
    max_body_bytes: int  # 0: no bound

    def query_problems(self, query: Mapping[str, str]) -> list[Problem]:
        """Return the problems of a query string. A parameter that the contract lacks is one of them."""
        found = [
            Problem((name,), "required", f"{name!r} is a required parameter")
            for name, parameter in self.parameters.items()
            if parameter.required and name not in query
        ]
        for name, text in query.items():
            parameter = self.parameters.get(name)
            if parameter is None:
                found.append(Problem((name,), "unknown", f"{name!r} is no parameter of {self.id}"))
            else:
                found += parameter.problems(name, text)
        return found

    def body_problems(self, body: object, size_bytes: int) -> list[Problem]:
        """Return the problems of a decoded body that was `size_bytes` long."""
        found = list(_problems(self.body, body, ()))
        if self.max_body_bytes and size_bytes > self.max_body_bytes:
            text = f"the body has {size_bytes} bytes, at most {self.max_body_bytes} are allowed"
            found.append(Problem((), "maxBytes", text))
        return found


def _problems(validator: Any, value: object, where: tuple[str, ...]) -> Iterator[Problem]:  # noqa: ANN401
    for error in validator.iter_errors(value):
        yield Problem((*where, *error.absolute_path), error.validator, error.message[:300])


class Contract:
    """All operations, by method and path."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._fixed: dict[tuple[str, str], Operation] = {}
        self._with_id: list[tuple[str, Operation]] = []
        for path, methods in document["paths"].items():
            for method, described in methods.items():
                self._add(method.upper(), path, _operation(path, _inlined(described, document)))

    def _add(self, method: str, path: str, operation: Operation) -> None:
        if operation.pattern:
            self._with_id.append((method, operation))
        else:
            self._fixed[method, path] = operation

    def find(self, method: str, path: str) -> tuple[Operation, int] | None:
        """Return the operation and the id in its path, or None when there is no such operation.

        The id is 0 when there is none; a name in its place is left to the handler.
        """
        fixed = self._fixed.get((method, path))
        if fixed:
            return fixed, 0
        for its_method, operation in self._with_id:
            match = operation.pattern and its_method == method and operation.pattern.fullmatch(path)
            if match:
                return operation, int(match[1]) if match[1].isdecimal() else 0
        return None


@cache
def contract() -> Contract:
    """Return the contract. It is read and compiled at the first call."""
    text = files(__package__).joinpath("contract", "openapi.json").read_bytes()
    return Contract(msgspec.json.decode(text))


def _inlined(node: Any, document: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return `node` with every reference replaced by its target: validation follows none, and is faster."""
    if isinstance(node, list):
        return [_inlined(item, document) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" not in node:
        return {key: _inlined(value, document) for key, value in node.items()}
    target: Any = document
    for key in node["$ref"].removeprefix("#/").split("/"):
        target = target[key]
    return _inlined(target, document)


def _operation(path: str, described: Mapping[str, Any]) -> Operation:
    content_type, schema = _body(described)
    return Operation(
        id=described["operationId"],
        pattern=_pattern(path) if "{" in path else None,
        parameters=_parameters(described),
        content_type=content_type,
        body=Draft202012Validator(schema) if content_type else None,
        max_body_bytes=schema.get("x-max-body-bytes", 0),
    )


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(path.replace("{id}", "([0-9]+)").replace("{name}", "([^/]+)"))


def _parameters(described: Mapping[str, Any]) -> dict[str, Parameter]:
    return {
        parameter["name"]: Parameter(
            Draft202012Validator(parameter["schema"]),
            is_integer=parameter["schema"].get("type") == "integer",
            required=parameter.get("required", False),
        )
        for parameter in described.get("parameters", ())
        if parameter["in"] == "query"
    }


def _body(described: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    content = described.get("requestBody", {}).get("content", {})
    for content_type, media in content.items():
        return content_type, media["schema"]
    return "", {}


_ACTID = re.compile("^[0-9]+$")
_EVENT_FIELDS = {"actid", "key", "event", "visit"}
_NAME_CHARACTERS = 32


def is_event_form(form: Mapping[str, str]) -> bool:
    """Return whether a form is a valid TrackEventForm.

    Written by hand, because each event is checked here and the compiled schema takes ten times as long. A
    test proves that both agree.
    """
    return (
        form.keys() >= _EVENT_FIELDS
        and len(form) == len(_EVENT_FIELDS) + ("eventdata" in form)
        and _ACTID.search(form["actid"]) is not None
        and form["key"] != ""
        and 0 < len(form["event"]) <= _NAME_CHARACTERS
        and '"email"' in form["visit"]
    )
