"""What the answers of the bulk import mean."""

from __future__ import annotations

import pytest

from kiva_stream.activecampaign.responses.bulk_imports import parse_import_report
from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.errors import AccountRefused, Rejected, RowsRejected, TryLater
from kiva_stream.model.bulk_imports import AcceptedImport, ImportReport, ImportState
from tests.unit.activecampaign.responses.builders import answer, parse_import, raised


@pytest.mark.parametrize("word", ["success", "Success"])
def test_an_accepted_import_has_an_id(word: str) -> None:
    response = answer(200, {word: 1, "queued_contacts": 3, "batchId": "b-1"})

    assert parse_import(response) == AcceptedImport("b-1", is_short=False)


@pytest.mark.parametrize("count", [0, 2, "2"])
def test_an_import_that_leaves_contacts_out_is_short(count: object) -> None:
    response = answer(200, {"success": 5, "queued_contacts": count, "batchId": "b-1"})

    assert parse_import(response) == AcceptedImport("b-1", is_short=True)


def test_an_import_without_a_count_of_contacts_is_not_short() -> None:
    assert parse_import(answer(200, {"batchId": "b-1"})) == AcceptedImport("b-1", is_short=False)


@pytest.mark.parametrize(
    "body",
    [
        {
            "success": 0,
            "message": "Rate limit exceeded.",
            "failureReasons": ["Up to 100 imports may be requested per minute. Please try again later."],
        },
        {"success": 0, "message": "Rate limit exceeded."},
        {"success": 0, "message": "", "failureReasons": ["Up to 20 imports may be requested per minute."]},
    ],
)
def test_throttling_in_the_disguise_of_a_400_is_tried_later(body: object) -> None:
    assert type(raised(parse_import, answer(400, body))) is TryLater


@pytest.mark.parametrize(
    ("number", "reason", "rows"),
    [
        (2, "It is invalid.", [1, 2]),
        ("2", "It is invalid.", [1, 2]),
        (0, "It is invalid.", [0]),
        (3, "It is invalid.", [2]),
        (2, "Email bob@example.org is invalid.", [1]),
        (1, "Email Bob@Example.org is invalid.", [1]),
        (2, "The name Evelyn is taken.", [2]),
        (1, "Bob is no name.", [0, 1]),  # so short a text may stand in any reason
    ],
)
def test_a_number_is_that_of_a_row_counted_from_1_or_from_0_unless_the_reason_quotes_one(
    number: object, reason: str, rows: list[int]
) -> None:
    reasons = [{"contact": number, "failureReason": reason}]
    error = raised(parse_import, answer(400, {"success": 0, "message": "no", "failureReasons": reasons}))

    assert isinstance(error, RowsRejected)
    assert list(error.reasons) == rows


def test_the_reasons_of_rows_are_quoted_without_addresses() -> None:
    reasons = [{"contact": 2, "failureReason": "Email bob@example.org is invalid."}, {"contact": 3}]
    error = raised(parse_import, answer(400, {"success": 0, "message": "no", "failureReasons": reasons}))

    assert isinstance(error, RowsRejected)
    assert error.reasons == {1: "Email [address] is invalid.", 2: ""}


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ({"success": 0, "message": "The address Bob@Example.org is invalid."}, [1]),
        (
            {
                "success": 0,
                "message": "no",
                "failureReasons": ["bob@example.org: bounced.", "eve@example.org"],
            },
            [1, 2],
        ),
        ({"errors": [{"title": "Email <eve@example.org> is not valid"}]}, [2]),
        ({"errors": [{"title": "no", "source": {"pointer": "/contacts/2/phone"}}]}, [1, 2]),
        ({"errors": [{"title": "no", "source": {"pointer": "/data/0"}}]}, [0]),
    ],
)
def test_a_text_naming_an_address_or_a_pointer_with_a_number_refuses_its_row(
    body: object, rows: list[int]
) -> None:
    for status in (400, 422):
        error = raised(parse_import, answer(status, body))
        assert isinstance(error, RowsRejected)
        assert list(error.reasons) == rows
        assert "example.org" not in str(error.reasons).lower()


@pytest.mark.parametrize(
    "response",
    [
        answer(400, {"success": 0, "message": "The list does not exist."}),
        answer(400, {"success": 0, "message": "no", "failureReasons": ["The contact limit is reached."]}),
        answer(400, {"success": 0, "message": "no", "failureReasons": [{"contact": -1}, {"contact": 4}]}),
        answer(400, {"success": 0, "message": "joann@example.org is no contact of ours"}),
        answer(400, b"\xff"),
        answer(422, {"errors": []}),
        answer(422, {"errors": [{"title": "no", "source": {"pointer": "/data/attributes/phone"}}]}),
        answer(413, {"message": "too large"}),
    ],
)
def test_an_import_refused_without_naming_a_row_refuses_this_import_and_not_the_account(
    response: Response,
) -> None:
    assert type(raised(parse_import, response)) is Rejected


def test_an_import_where_the_api_has_no_such_call_refuses_the_account() -> None:
    assert type(raised(parse_import, answer(404, {"message": "no such thing"}))) is AccountRefused


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (False, ImportState.RUNNING),
        ("waiting", ImportState.RUNNING),
        ("claimed", ImportState.RUNNING),
        ("active", ImportState.RUNNING),
        ("completed", ImportState.COMPLETED),
        ("failed", ImportState.LOST),
        ("interrupted", ImportState.LOST),
    ],
)
def test_the_state_of_an_import_follows_its_status(status: object, state: ImportState) -> None:
    assert (
        parse_import_report(answer(200, {"status": status, "success": ["1"], "failure": []})).state is state
    )


def test_the_failures_of_an_import_are_lower_case_addresses() -> None:
    response = answer(
        200, {"status": "completed", "success": [], "failure": ["Ann@Example.org", " bob@x.org"]}
    )

    assert parse_import_report(response) == ImportReport(
        ImportState.COMPLETED, frozenset({"ann@example.org", "bob@x.org"})
    )


@pytest.mark.parametrize(
    "response",
    [
        answer(404, {"message": "No Result found for ContactImport with id x"}),
        answer(400, {"success": 0, "message": "'batchId' is a required field."}),
    ],
)
def test_an_import_of_an_unknown_id_is_lost(response: Response) -> None:
    assert parse_import_report(response) == ImportReport(ImportState.LOST)


@pytest.mark.parametrize("status", ["done", None, 3])
def test_an_unknown_status_of_an_import_is_tried_later(status: object) -> None:
    assert type(raised(parse_import_report, answer(200, {"status": status}))) is TryLater


@pytest.mark.parametrize("status", [405, 410])
def test_a_report_at_a_wrong_address_refuses_the_account_and_loses_no_import(status: int) -> None:
    assert type(raised(parse_import_report, answer(status, {}))) is AccountRefused
