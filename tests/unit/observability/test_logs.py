from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from kiva_stream.model.positions import Position
from kiva_stream.observability import logs
from kiva_stream.observability.logs import ThrottledWarning
from kiva_stream.observability.progress import Progress, ProgressLog
from kiva_stream.observability.scrubbing import Scrubber
from kiva_stream.settings.sections import LogSettings

TOKEN = 'tök"n/4711 planted'
ADDRESS = "anna.berg@example.com"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def progress(outcomes: int = 0, phase: str = "events", **more: float | None) -> Progress:
    return Progress(
        phase=phase,
        entries_read=outcomes,
        outcomes=outcomes,
        events_sent=0,
        contacts_done=0,
        watermark=Position(7, outcomes),
        **({"per_second": 50.0} | more),  # type: ignore[arg-type]
    )


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


@pytest.mark.parametrize("shape", ["json", "console"])
def test_a_planted_token_and_address_reach_no_log_line(
    capsys: pytest.CaptureFixture[str], shape: str
) -> None:
    logs.configure(LogSettings(format=shape), [TOKEN])  # type: ignore[arg-type]
    log = structlog.get_logger().bind(bound=TOKEN)
    log.info(f"sent {TOKEN} to {ADDRESS}", token=TOKEN, nested={"a": [TOKEN, ADDRESS]}, raw=TOKEN.encode())
    try:
        in_a_frame = TOKEN
        raise ValueError(f"refused {in_a_frame} of <{ADDRESS}>")  # noqa: TRY301  a frame that knows the secret
    except ValueError:
        log.exception("failed")
    logging.getLogger("a.library").error("unclosed %s %s", TOKEN, ADDRESS)
    text = capsys.readouterr().err
    assert "4711" not in text
    assert "anna.berg" not in text
    assert "a***@example.com" in text
    assert "ValueError: refused *** of <a***@example.com>" in text
    assert "unclosed *** a***@example.com" in text


def test_logs_are_json_lines_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings())
    structlog.get_logger().info("started", site=1)
    (line,) = lines(capsys)
    assert (line["event"], line["level"], line["site"]) == ("started", "info", 1)
    assert line["timestamp"].endswith("Z")


def test_logs_are_readable_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    logs.configure(LogSettings())
    structlog.get_logger().info("started", site=1)
    text = capsys.readouterr().err
    assert "started" in text
    assert not text.startswith("{")


def test_what_is_below_the_level_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(level="warning"))
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [line["event"] for line in lines(capsys)] == ["loud"]


def test_addresses_show_when_the_shop_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(mask_emails=False), [TOKEN])
    structlog.get_logger().info(f"{ADDRESS} {TOKEN}")
    assert lines(capsys)[0]["event"] == f"{ADDRESS} ***"


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("anna@example.com", "a***@example.com"),
        ("a@b.c", "a***@b.c"),
        ("x (anna.b+box@sub.example.com), y", "x (a***@sub.example.com), y"),
        ("jörg@bücher.example", "j***@bücher.example"),
        (
            "/api/3/contacts?email=anna%2Bbox%40example.com&limit=1",
            "/api/3/contacts?email=a***%40example.com&limit=1",
        ),
        ("anna@gmial, bert@example.com", "a***@gmial, b***@example.com"),
        ("@property in 5 @ 3", "@property in 5 @ 3"),
    ],
)
def test_an_address_is_masked_wherever_it_stands(text: str, scrubbed: str) -> None:
    assert Scrubber()(text) == scrubbed


def test_a_secret_is_hidden_in_every_form_it_takes() -> None:
    scrub = Scrubber(["p ä/ss", "p ä/ss and more"])
    assert scrub("p ä/ss p%20%C3%A4%2Fss p \\u00e4/ss p ä/ss and more") == "*** *** *** ***"


def test_a_short_secret_cuts_no_holes_into_other_words() -> None:
    assert Scrubber(["ab"])("a cabin") == "a cabin"


def test_a_long_text_is_scrubbed_in_time_by_its_length() -> None:
    started = time.process_time()
    Scrubber([TOKEN])("x" * 30_000)
    assert time.process_time() - started < 1


def test_progress_has_the_time_left_of_its_phase() -> None:
    assert progress(100, entries_total=600).left_s == 10
    assert progress(phase="contacts", contacts_total=100, entries_total=600).left_s == 2
    assert progress(100).left_s is None
    assert progress(100, entries_total=600, per_second=0.0).left_s is None


def test_progress_is_logged_at_once_then_at_intervals_and_when_the_phase_changes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(LogSettings())
    now = 0.0
    hook = ProgressLog(every_s=10, clock=lambda: now)
    for now, seen in (  # noqa: B007  the clock reads it
        (0.0, progress(1, phase="contacts")),
        (9.9, progress(2, phase="contacts")),
        (9.95, progress(3)),
        (19.9, progress(4)),
        (19.96, progress(5, entries_total=105)),
    ):
        hook(seen)
    logged = lines(capsys)
    assert [line["outcomes"] for line in logged] == [1, 3, 5]
    assert (logged[2]["watermark"], logged[2]["left_s"]) == ("7:5", 2.0)
    assert "left_s" not in logged[0]


def test_a_throttled_warning_is_logged_at_most_once_an_interval() -> None:
    now = 100.0
    warn = ThrottledWarning(every_s=10, clock=lambda: now)
    with capture_logs() as lines:
        for now in (100.0, 100.0, 109.9, 110.0, 119.0):
            warn("trouble", at=now)
    assert [line["at"] for line in lines] == [100.0, 110.0]
