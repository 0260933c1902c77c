"""What the answers about the tags of a contact mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.activecampaign.responses.tags import (
    TagLink,
    parse_added_tag,
    parse_removed_tag,
    parse_tag_links,
)
from kiva_stream.errors import ContactGone, ForeignAnswer, Rejected, TryLater
from tests.unit.activecampaign.responses.builders import HTML, TAG_PARSERS, answer, is_accepted, raised


def test_the_links_of_a_contact_are_its_tags_with_their_ids() -> None:
    rows = [{"id": "31", "contact": "1", "tag": "11"}, {"id": 32, "contact": 1, "tag": 12}]

    assert parse_tag_links(answer(200, {"contactTags": rows})) == [TagLink(31, 11), TagLink(32, 12)]
    assert parse_tag_links(answer(200, {"contactTags": []})) == []


@pytest.mark.parametrize("status", [200, 201])
def test_an_added_tag_has_the_id_of_its_link(status: int) -> None:
    assert parse_added_tag(answer(status, {"contacts": [], "contactTag": {"id": "31", "tag": "11"}})) == 31


@pytest.mark.parametrize(
    "response",
    [
        answer(200, {}),
        answer(404, {"message": "No Result found for SubscriberTag with id 1"}),
        answer(404, {"errors": [{"status": 404, "detail": "Not found"}]}),
    ],
)
def test_a_tag_whose_link_is_gone_counts_as_removed(response: Response) -> None:
    assert is_accepted(parse_removed_tag, response)


@pytest.mark.parametrize("parse", [parse_tag_links, parse_added_tag])
def test_a_404_for_the_contact_to_tag_says_that_it_is_gone(parse: Callable[[Response], Any]) -> None:
    response = answer(404, {"errors": [{"status": 404, "title": "Not Found", "detail": "Contact not found"}]})

    assert type(raised(parse, response)) is ContactGone


@pytest.mark.parametrize("parse", TAG_PARSERS)
@pytest.mark.parametrize("status", [400, 422])
def test_a_refused_tag_is_rejected_for_this_contact(parse: Callable[[Response], Any], status: int) -> None:
    error = raised(parse, answer(status, {"errors": [{"title": "No tag id provided"}]}))

    assert type(error) is Rejected
    assert "No tag id provided" in error.reply


@pytest.mark.parametrize("parse", TAG_PARSERS)
@pytest.mark.parametrize(
    ("response", "meaning"),
    [
        (answer(500), TryLater),
        (answer(404, HTML), ForeignAnswer),
        (answer(200, HTML), ForeignAnswer),
        (answer(200, b""), TryLater),
    ],
)
def test_an_answer_about_a_tag_that_cannot_be_read_is_tried_later(
    parse: Callable[[Response], Any], response: Response, meaning: type[TryLater]
) -> None:
    assert type(raised(parse, response)) is meaning
