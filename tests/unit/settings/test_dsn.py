"""Addresses of databases: which part is secret, and which errors are about the address."""

from __future__ import annotations

from ssl import SSLCertVerificationError

import pytest

from kiva_stream.errors import SourceError
from kiva_stream.settings.dsn import reading_dsn
from kiva_stream.settings.loading import load
from tests.unit.settings.environment import REQUIRED


def test_a_dsn_whose_password_cannot_be_told_apart_is_a_secret_as_a_whole() -> None:
    dsn = "postgresql://ro:s3cret[word@db/shop"
    assert dsn in load(None, REQUIRED | {"KIVA_STREAM__SOURCE__DSN": dsn}).secrets()


def test_a_certificate_that_is_refused_is_not_an_address_that_cannot_be_read() -> None:
    with pytest.raises(SSLCertVerificationError), reading_dsn("source.dsn", SourceError):
        raise SSLCertVerificationError("self-signed")
