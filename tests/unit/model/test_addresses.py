"""What makes an address usable, and its normal form."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiva_stream.model.addresses import MAX_BYTES, Parsed, first_email, parse_email, spellings
from kiva_stream.model.ids import Email

# The schema of an address in ActiveCampaign's description of its API.
ACTIVECAMPAIGN = re.compile(r"^[^@\s]+@[^@\s]+\.[^@\s.]{2,}$")
PARTS = [
    *"@@@..Äß。-_7;, \t\n\\<>'\x00\u200b\ud800😀İΣ",
    "ann",
    "example",
    ".com",
    "xn--",
    "ann@example.com",
    "x" * 120,
]
MESSY = st.lists(st.sampled_from(PARTS), max_size=12).map("".join)


@pytest.mark.parametrize("text", [None, "", " ", " \t\n "])
def test_a_field_without_anything_in_it_is_no_address(text: str | None) -> None:
    assert parse_email(text) == Parsed(None)


@pytest.mark.parametrize(
    ("text", "email"),
    [
        ("ann@example.com", "ann@example.com"),
        ("  Ann.Lee@Example.COM ", "ann.lee@example.com"),
        ("ann@example.com.", "ann@example.com"),
        ("ann@example.com..", "ann@example.com"),
        ("o'brien+box@mail.example.co.uk", "o'brien+box@mail.example.co.uk"),
        ("ann@my_shop.example.com", "ann@my_shop.example.com"),
        ("ann@münchen.example", "ann@xn--mnchen-3ya.example"),
        ("ann@MÜNCHEN.example", "ann@xn--mnchen-3ya.example"),
        ("ann@ｅｘａｍｐｌｅ．com", "ann@example.com"),  # noqa: RUF001  as typed on a Japanese keyboard
        ("ann@例え。jp", "ann@xn--r8jz45g.jp"),
        ("anné@example.com", "anné@example.com"),
    ],
)
def test_a_usable_address_has_one_normal_form(text: str, email: str) -> None:
    assert parse_email(text) == (email, False)


@pytest.mark.parametrize(
    "text",
    [
        "n/a",
        "none",
        "ann.example.com",
        "ann@@example.com",
        "@example.com",
        "ann@",
        "ann@example",
        "ann@example.c",
        "ann@example..com",
        "ann@.com",
        "ann@x,com",
        "ann@example.com,",
        "ann lee@example.com",
        "ann@exam ple.com",
        "ann@example.com\x00",
        "a\x07nn@example.com",
        "ann\u200b@example.com",
        "ann\ud800@example.com",
        "Ann Lee <ann@example.com>",
        "ann@\u2488com.example",  # a digit with a full stop: idna refuses it
        f"ann@{'ü' * 64}.example",  # a label too long for a host name
    ],
)
def test_an_address_that_would_have_to_be_guessed_is_none(text: str) -> None:
    assert parse_email(text).email is None


def test_an_address_may_have_254_bytes_and_no_more() -> None:
    longest = "a" * (MAX_BYTES - len("@example.com")) + "@example.com"
    assert parse_email(longest).email == longest
    assert parse_email("a" + longest).email is None
    assert parse_email("é" + longest[1:]).email is None


@pytest.mark.parametrize(
    ("text", "email"),
    [
        ("a@x.com; b@x.com", "a@x.com"),
        ("a@x.com,b@x.com", "a@x.com"),
        ("A@X.com b@x.com", "a@x.com"),
        ("a@x; b@x.com", "b@x.com"),
        ("a@x; b@y", None),
    ],
)
def test_of_several_addresses_in_a_field_the_first_usable_one_counts(text: str, email: str | None) -> None:
    assert parse_email(text) == (email, True)


@pytest.mark.parametrize("text", ["a@b@example.com", "a@x.com@"])
def test_one_address_with_two_signs_is_neither_usable_nor_several(text: str) -> None:
    assert parse_email(text) == Parsed(None, several=False)


@given(MESSY)
def test_what_is_accepted_is_in_normal_form_and_fits_activecampaign(text: str) -> None:
    email = parse_email(text).email
    if email is not None:
        assert ACTIVECAMPAIGN.fullmatch(email)
        assert len(email.encode()) <= MAX_BYTES
        assert "," not in email
        assert parse_email(email) == Parsed(email)


@pytest.mark.parametrize(
    ("text", "email"),
    [
        ("Unsubscribed email Ann@Example.com", "ann@example.com"),
        ("Unsubscribed email ann@example.com.", "ann@example.com"),
        ("Submitted Contact Form: delivery question (ann@example.com)", "ann@example.com"),
        ("from <mailto:ann@example.com>, thanks!", "ann@example.com"),
        ("'ann@example.com'!", "ann@example.com"),
        ("@ann wrote from ann@example.com and bob@example.com", "ann@example.com"),
        ("ann@x,com", None),
        ("meet @ noon", None),
        ("no address here", None),
    ],
)
def test_the_first_usable_address_is_found_in_free_text(text: str, email: str | None) -> None:
    assert first_email(text) == email


@given(MESSY)
def test_an_address_found_in_text_is_usable_by_itself(text: str) -> None:
    email = first_email(text)
    assert email is None or parse_email(email) == Parsed(email)


@pytest.mark.parametrize(
    ("email", "texts"),
    [
        ("ann@example.com", ["ann@example.com", "ann@example.com."]),
        (
            "ann@xn--mnchen-3ya.example",
            [
                "ann@xn--mnchen-3ya.example",
                "ann@xn--mnchen-3ya.example.",
                "ann@münchen.example",
                "ann@münchen.example.",
            ],
        ),
        ("ann@xn--zzzz999.example", ["ann@xn--zzzz999.example", "ann@xn--zzzz999.example."]),
    ],
)
def test_an_address_is_looked_up_by_the_spellings_of_its_host(email: str, texts: list[str]) -> None:
    assert spellings(Email(email)) == texts


@given(MESSY)
def test_every_spelling_of_an_address_is_read_as_that_address(text: str) -> None:
    email = parse_email(text).email
    assert email is None or {parse_email(each).email for each in spellings(email)} == {email}
