"""The circuit breaker: in an outage few requests are sent, and one of them ends it. In virtual time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any, TypeVar

import msgspec
import pytest

from kiva_stream.activecampaign.circuit_breaker import CircuitBreaker
from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.events import Events
from kiva_stream.activecampaign.own_user import OWN_USER, AnsweredHere
from kiva_stream.activecampaign.pause import Pause
from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.activecampaign.responses.tags import parse_tag_links
from kiva_stream.activecampaign.retry_policy import REFUSALS
from kiva_stream.errors import (
    AccountRefused,
    DrainedError,
    IdsChanged,
    Rejected,
    TryLater,
    Unanswered,
    UnknownOutcome,
    WrongUrl,
)
from kiva_stream.model.ids import Email
from kiva_stream.observability.incidents import Incidents
from kiva_stream.settings.sections import ActiveCampaignSettings
from tests.support.virtual_time import now, run

T = TypeVar("T")
Answer = Response | Exception

SETTINGS = ActiveCampaignSettings(
    api_url="https://account.example",
    api_token="the-token",
    event_actid="25550001",
    event_key="the-key",
    event_url="https://events.example/event",
)
FAILURES, MAX_S = SETTINGS.breaker_failures, SETTINGS.backoff_max_s
LATENCY_S, OUTAGE_S, RETRY_S = 0.05, 120.0, 300.0
SENDERS, CALLERS = 200, 20
PROBES = 30  # the most that chance lets pass in an outage, of one host: one in a billion runs has more
ANN = Email("ann@example.org")
EVENT_DONE = Response(200, b'{"success": 1}')
NO_LINKS = Response(200, b'{"contactTags": []}')
CANNOT_CONNECT = TryLater("cannot connect")
LOST = UnknownOutcome("no answer")
HTML_503 = Response(503, b"<html>")
HTML_200 = Response(200, b"<html>")
FORBIDDEN = Response(403, b"{}")


class ScriptedClient(Client):
    """A client whose requests are answered by the story; `sent` is when each was, by host."""

    def __init__(self, answer: Callable[[], Answer | None], retry_refused_s: float | None) -> None:
        self.incidents = Incidents()
        self.answer = answer
        self.sent: dict[str | None, list[float]] = {"account.example": [], "events.example": []}
        self.own_user_reads = 0
        super().__init__(
            SETTINGS,
            retry_refused_s=retry_refused_s,
            answered=AnsweredHere(is_known=True),
            incidents=self.incidents,
            clock=now,
        )

    async def exchange(self, *request: Any, **_: Any) -> Response:  # noqa: ANN401  passed on as they come
        url, data = request[1:]
        if url.path.endswith(OWN_USER):
            self.own_user_reads += 1
        else:
            self.sent[url.host].append(now())
        await asyncio.sleep(LATENCY_S)
        answer = self.answer() or (EVENT_DONE if data else NO_LINKS)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kinds(self) -> list[str]:
        return [each.kind for each in self.incidents.all()]


class Bench:
    """An account in a story whose time is in seconds from its beginning."""

    def __init__(self, fault: Answer, until_s: float, retry_refused_s: float | None = None) -> None:
        self.began = now()
        self.fault, self.until_s = fault, until_s
        self.client = ScriptedClient(self.answer, retry_refused_s)
        self.events = Events(SETTINGS, self.client, clock=now)

    def answer(self) -> Answer | None:
        return self.fault if now() - self.began < self.until_s else None

    def sent(self, host: str) -> list[float]:
        return [at - self.began for at in self.client.sent[host]]

    async def call(self, *, tries: float = math.inf, is_suspect: bool = False) -> None:
        path = "/contacts/1/contactTags"
        await self.client.call("GET", path, parse=parse_tag_links, tries=tries, is_suspect=is_suspect)

    async def send(self) -> None:
        """Send an event until its outcome is known."""
        while True:
            with suppress(UnknownOutcome):
                return await self.events.send(ANN, "Name", "log=1")

    async def work(self) -> None:
        """Have many events and calls under way at once."""
        async with asyncio.TaskGroup() as group:
            for _ in range(SENDERS):
                group.create_task(self.send())
            for _ in range(CALLERS):
                group.create_task(self.call())


def tell(story: Callable[[], Awaitable[T]]) -> T:
    async def told() -> T:
        return await story()

    return run(told())


@pytest.mark.parametrize(
    "fault", [CANNOT_CONNECT, LOST, HTML_503, HTML_200, Response(500, b""), Response(521, b"")]
)
def test_in_an_outage_of_two_minutes_few_requests_are_sent_and_after_it_all_succeed(fault: Answer) -> None:
    async def story() -> tuple[list[float], list[float], float, list[str]]:
        bench = Bench(fault, OUTAGE_S)
        await bench.work()
        return (
            bench.sent("events.example"),
            bench.sent("account.example"),
            now() - bench.began,
            bench.client.kinds(),
        )

    events, calls, lasted_s, incidents = tell(story)

    for times, wanted in ((events, SENDERS), (calls, CALLERS)):
        assert (
            sum(at < OUTAGE_S for at in times) <= FAILURES + 4 + PROBES
        )  # four are under way at 60 a second
        assert sum(at >= OUTAGE_S for at in times) <= wanted + 1
    assert lasted_s < OUTAGE_S + MAX_S + SENDERS / SETTINGS.events_per_second + CALLERS / 4 + 1
    assert incidents == []


def test_a_call_that_waits_for_the_breaker_does_not_back_off_besides() -> None:
    async def story() -> list[float]:
        bench = Bench(HTML_503, OUTAGE_S)
        await bench.call()
        return bench.sent("account.example")

    gaps = [later - earlier for earlier, later in pairwise(tell(story))]

    # What it waits after each of five failures of its own is up to 16 s, and no more when the breaker opens.
    assert all(gap <= most + 1.1 for gap, most in zip(gaps, (1, 2, 4, 8, 1, 2, 4, 8, 16), strict=False))


def test_a_suspect_backs_off_while_the_breaker_is_open_and_is_answered_by_no_probe() -> None:
    async def story() -> tuple[list[float], list[str]]:
        bench = Bench(HTML_503, 2 * OUTAGE_S)
        for _ in range(FAILURES):
            with suppress(Unanswered):
                await bench.call(tries=1)
        with suppress(TimeoutError):
            async with asyncio.timeout(OUTAGE_S):
                while True:
                    with suppress(Unanswered):
                        await bench.call(tries=1, is_suspect=True)
        return bench.sent("account.example")[FAILURES:], bench.client.kinds()

    sent, incidents = tell(story)

    assert 0 < len(sent) <= PROBES
    assert incidents == ["activecampaign"]


def test_a_suspect_that_is_answered_waits_no_longer_and_leaves_the_breaker_open() -> None:
    async def story() -> tuple[float, bool]:
        host = breaker()
        host.trip(AccountRefused("no"))
        for error in (CANNOT_CONNECT, CANNOT_CONNECT, None):
            with suppress(TryLater), host.suspect():
                if error is not None:
                    raise error
        await asyncio.sleep(RETRY_S)
        began = now()
        await host.wait(is_suspect=True)
        return now() - began, host.is_open

    assert tell(story) == (0.0, True)


@pytest.mark.parametrize("is_suspect", [False, True])
def test_throttling_holds_all_requests_also_while_the_breaker_is_open(is_suspect: bool) -> None:
    async def story() -> float:
        host = breaker(None)
        client = ScriptedClient(lambda: Response(429, b"{}", retry_after="40"), None)
        for _ in range(FAILURES):
            host.record(CANNOT_CONNECT, is_probe=False)
        with suppress(TimeoutError):
            async with asyncio.timeout(30):
                await client.call("GET", "/", parse=parse_tag_links, breaker=host, is_suspect=is_suspect)
        began = now()
        await host.pause.wait()
        return now() - began

    assert tell(story) > 5


def test_an_outage_is_an_incident_while_it_lasts() -> None:
    async def story() -> list[list[str]]:
        bench = Bench(HTML_503, OUTAGE_S)
        working = asyncio.create_task(bench.work())
        await asyncio.sleep(OUTAGE_S / 2)
        during = bench.client.kinds()
        await working
        return [during, bench.client.kinds()]

    assert tell(story) == [["activecampaign"], []]


def test_a_refused_key_is_probed_by_one_request_every_retry_time() -> None:
    async def story() -> tuple[list[float], list[float], list[str]]:
        bench = Bench(FORBIDDEN, 3.5 * RETRY_S, RETRY_S)
        working = asyncio.create_task(bench.work())
        await asyncio.sleep(RETRY_S / 2)
        kinds = bench.client.kinds()
        await working
        assert bench.client.kinds() == []
        return bench.sent("events.example"), bench.sent("account.example"), kinds

    events, calls, kinds = tell(story)

    assert kinds == ["key"]
    for times, wanted in ((events, SENDERS), (calls, CALLERS)):
        refused = [at for at in times if at < 3.5 * RETRY_S]
        probes = [at for at in refused if at > RETRY_S / 2]
        assert len(probes) == 3
        assert all(later - earlier >= RETRY_S for earlier, later in pairwise(probes))
        assert len(refused) - len(probes) <= REFUSALS + CALLERS  # as many as were under way
        assert len(times) - len(refused) == wanted


def test_a_refusal_of_one_call_among_others_that_are_answered_is_outlasted_too() -> None:
    async def story() -> tuple[int, list[str]]:
        bench = Bench(NO_LINKS, 0, RETRY_S)
        refused = 0

        def parse(_response: Response) -> None:
            nonlocal refused
            if now() - bench.began < RETRY_S:
                refused += 1
                raise AccountRefused("bulk imports are refused")

        asking = asyncio.create_task(bench.client.call("GET", "/imports", parse=parse))
        while not asking.done():
            await bench.call()
            await asyncio.sleep(0.3)
        await asking
        return refused, bench.client.kinds()

    assert tell(story) == (REFUSALS, [])


def test_before_each_probe_of_what_is_refused_the_check_is_made_and_its_error_ends_the_call() -> None:
    began: list[float] = []
    checks: list[float] = []

    async def check() -> None:
        await asyncio.sleep(1)
        checks.append(now() - began[0])
        if len(checks) == 3:
            raise IdsChanged("another connection")

    async def story() -> int:
        began.append(now())
        client = ScriptedClient(lambda: FORBIDDEN, RETRY_S)
        host = client.new_breaker("orders", client.new_pause(), incident="orders", before_probe=check)
        with pytest.raises(IdsChanged):
            await client.call("GET", "/", parse=parse_tag_links, breaker=host)
        return len(client.sent["account.example"])

    assert tell(story) == REFUSALS + 2
    assert [round(at / RETRY_S) for at in checks] == [1, 2, 3]


def test_an_outage_has_no_check_before_its_probes() -> None:
    async def check() -> None:
        raise IdsChanged("not asked for")

    async def story() -> int:
        client = ScriptedClient(iter([*[HTML_503] * 2 * FAILURES, None]).__next__, RETRY_S)
        host = client.new_breaker("orders", client.new_pause(), before_probe=check)
        await client.call("GET", "/", parse=parse_tag_links, breaker=host)
        return len(client.sent["account.example"])

    assert tell(story) == 2 * FAILURES + 1


def test_a_suspect_that_stays_refused_is_sent_once_every_retry_time() -> None:
    async def story() -> int:
        client = ScriptedClient(lambda: FORBIDDEN, RETRY_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(3.5 * RETRY_S):
                await client.call("GET", "/", parse=parse_tag_links, is_suspect=True)
        return len(client.sent["account.example"])

    assert tell(story) == REFUSALS + 3


def test_without_a_time_to_retry_a_refusal_is_raised() -> None:
    async def story() -> tuple[int, int]:
        bench = Bench(FORBIDDEN, 1_000)
        with pytest.raises(AccountRefused):
            await bench.call()
        with pytest.raises(AccountRefused):
            await bench.send()
        return len(bench.sent("account.example")), bench.client.own_user_reads

    assert tell(story) == (REFUSALS, REFUSALS)


def test_throttling_does_not_open_the_breaker_but_is_an_incident() -> None:
    async def story() -> tuple[list[float], list[str]]:
        bench = Bench(Response(429, b"", "30"), 100)
        calling = asyncio.create_task(bench.call())
        await asyncio.sleep(20)
        first = bench.client.incidents.all()
        await asyncio.sleep(30)
        assert bench.client.incidents.all() == first  # since the first time
        kinds = bench.client.kinds()
        await calling
        return bench.sent("account.example"), kinds

    times, kinds = tell(story)

    assert len(times) == 5  # every 30 s
    assert kinds == ["activecampaign"]


# The breaker alone


def breaker(retry_refused_s: float | None = RETRY_S, incidents: Incidents | None = None) -> CircuitBreaker:
    pause = Pause(asyncio.sleep, now)
    return CircuitBreaker(
        "REST",
        pause,
        incidents or Incidents(),
        failures=3,
        max_s=MAX_S,
        retry_refused_s=retry_refused_s,
        chance=lambda: 1.0,
    )


async def ended(host: CircuitBreaker, *errors: Exception | None) -> list[float]:
    """Make requests one after another, each ending so; return how long each had to wait before."""
    waits = []
    for error in errors:
        began = now()
        await host.pause.wait()
        waits.append(round(now() - began, 1))
        with suppress(Exception), host.request():
            if error:
                raise error
    return waits


@pytest.mark.parametrize(
    ("errors", "waits"),
    [
        ([CANNOT_CONNECT] * 8, [0, 0, 0, 1, 2, 4, 8, 16]),
        ([CANNOT_CONNECT, LOST, None, LOST, LOST, None], [0] * 6),  # in a row
        ([LOST, LOST, Rejected("no"), LOST, LOST, None], [0] * 6),  # it answered
        ([LOST] * 3 + [None, LOST, LOST, LOST, None], [0, 0, 0, 1, 0, 0, 0, 1]),  # the waits begin anew
        ([LOST] * 3 + [Rejected("no"), None], [0, 0, 0, 1, 0]),
        ([TryLater("throttled", 30.0)] * 9, [0] * 9),
        ([AccountRefused("no")] * 5 + [None, None], [0, 0, 0, RETRY_S, RETRY_S, RETRY_S, 0]),
        ([AccountRefused("no"), AccountRefused("no"), None, AccountRefused("no"), None], [0] * 5),
        ([LOST] * 3 + [AccountRefused("a blip"), None], [0, 0, 0, 1, 0]),
        ([AccountRefused("no")] * 3 + [LOST, None], [0, 0, 0, RETRY_S, 2]),
        ([ValueError("a bug")] * 5, [0] * 5),
    ],
)
def test_the_breaker_opens_after_errors_in_a_row_for_the_right_time(
    errors: list[Exception | None], waits: list[float]
) -> None:
    assert tell(lambda: ended(breaker(), *errors)) == waits


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CANNOT_CONNECT, "activecampaign"),
        (LOST, "activecampaign"),
        (WrongUrl("another server"), "activecampaign"),
        (AccountRefused("no"), "key"),
    ],
)
@pytest.mark.parametrize("retry_refused_s", [None, RETRY_S])
def test_what_fails_before_the_first_answer_is_an_incident_at_once(
    error: Exception, kind: str, retry_refused_s: float | None
) -> None:
    async def story() -> list[list[str]]:
        incidents = Incidents()
        host = breaker(retry_refused_s, incidents)
        kinds: list[list[str]] = []
        for end in (error, None, error):
            await ended(host, end)
            kinds.append([each.kind for each in incidents.all()])
        assert not host.is_open
        return kinds

    assert tell(story) == [[kind], [], []]


def test_all_other_requests_wait_while_a_probe_is_out() -> None:
    async def story() -> list[str]:
        host, order = breaker(), list[str]()
        await ended(host, LOST, LOST, LOST)

        async def request(name: str) -> None:
            await host.pause.wait()
            with host.request():
                order.append(f"{name} goes out")
                await asyncio.sleep(20)
                order.append(f"{name} is answered")

        await asyncio.gather(*(request(name) for name in "ab"))
        return order

    assert tell(story) == ["a goes out", "a is answered", "b goes out", "b is answered"]


def test_the_request_after_a_cancelled_probe_is_the_next_probe() -> None:
    async def story() -> float:
        host = breaker()
        await ended(host, LOST, LOST, LOST)

        async def probe() -> None:
            await host.pause.wait()
            with host.request():
                await asyncio.sleep(1_000)

        probing = asyncio.create_task(probe())
        await asyncio.sleep(10)
        probing.cancel()
        began = now()
        await ended(host, None)
        assert not host.is_open
        return now() - began

    assert tell(story) < 0.1


def test_a_request_sent_before_the_breaker_opened_does_not_close_it() -> None:
    async def story() -> bool:
        host = breaker()
        with host.request():
            await ended(host, LOST, LOST, LOST)
        return host.is_open

    assert tell(story)


def test_a_drain_ends_all_waiting_sends_at_once() -> None:
    async def story() -> tuple[int, float]:
        bench = Bench(FORBIDDEN, 1_000, RETRY_S)
        drained = asyncio.Event()

        async def sleep(seconds: float) -> None:
            with suppress(TimeoutError):
                await asyncio.wait_for(drained.wait(), seconds)
                raise DrainedError("drained")

        events = Events(SETTINGS, bench.client, sleep=sleep, clock=now)
        sending = [asyncio.create_task(events.send(ANN, "Name", "log=1")) for _ in range(SENDERS)]
        await asyncio.sleep(RETRY_S / 2)
        drained.set()
        began = now()
        errors = await asyncio.gather(*sending, return_exceptions=True)
        return sum(isinstance(error, DrainedError) for error in errors), now() - began

    drained, lasted_s = tell(story)

    assert drained == SENDERS
    assert lasted_s < 0.1


def test_no_event_name_is_registered_after_a_drain_began() -> None:
    class Drained:
        def __enter__(self) -> None:
            raise DrainedError("drained")

        def __exit__(self, *_: object) -> None: ...

    async def story() -> list[float]:
        unknown = Response(200, msgspec.json.encode({"success": 0, "message": "Unknown event name."}))
        bench = Bench(unknown, 1_000)
        events = Events(SETTINGS, bench.client, unless_drained=Drained, clock=now)
        with pytest.raises(DrainedError):
            await events.send(ANN, "Name", "log=1")
        return bench.sent("account.example")

    assert tell(story) == []


def test_an_incident_of_an_earlier_round_ends_when_the_next_begins() -> None:
    async def story() -> list[list[str]]:
        bench = Bench(FORBIDDEN, 1_000, RETRY_S)
        sending = asyncio.create_task(bench.send())
        await asyncio.sleep(100)
        sending.cancel()
        during = bench.client.kinds()
        Events(SETTINGS, bench.client, clock=now)
        return [during, bench.client.kinds()]

    assert tell(story) == [["key"], []]


def test_a_lowered_pace_is_an_incident_until_it_has_recovered() -> None:
    async def story() -> list[list[str]]:
        bench = Bench(Response(429, b"", "3"), 1)
        kinds = []
        for _ in range(2):
            await bench.send()
            kinds.append(bench.client.kinds())
            await asyncio.sleep(20)
        return kinds

    assert tell(story) == [["events"], []]
