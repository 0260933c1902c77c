"""Scripted answers of aiohttp: aioresponses 0.7.9, with the one argument that aiohttp 3.14 needs besides."""

from __future__ import annotations

from typing import Any, Self
from unittest.mock import Mock

from aiohttp import ClientConnectorError, ClientResponse
from aiohttp.client_reqrep import ConnectionKey
from aioresponses import aioresponses

CONNECTION = ConnectionKey("account.example", 443, True, True, None, None, None)
CANNOT_CONNECT = ClientConnectorError(CONNECTION, ConnectionRefusedError(111, "refused"))


class Response(ClientResponse):
    """Supplies the `stream_writer` that aiohttp asks for since 3.14 (aioresponses issue 289)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  passed on as they come
        super().__init__(*args, stream_writer=Mock(output_size=0), **kwargs)


class Answers(aioresponses):
    """The answers that requests get, in the order they were added for an address."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def add(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  passed on as they come
        super().add(*args, **(kwargs | {"response_class": Response}))
