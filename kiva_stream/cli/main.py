"""The command line: arguments in, exit codes out. What a command does stands in `app`.

Answers go to stdout; progress, logs and errors to stderr. Who fails on purpose says one sentence, and the
exit code says what kind of trouble it is.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar, TypeVarTuple, Unpack

import anyio
import msgspec
import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

from kiva_stream import __version__
from kiva_stream.commands.reports import (
    BackfillRequest,
    CheckReport,
    LetterRequest,
    RewindRequest,
    Summary,
    VerifyRequest,
)
from kiva_stream.errors import (
    AccountRefused,
    CheckpointError,
    DrainTimeoutError,
    HeldError,
    KivaStreamError,
    SettingsError,
    SourceError,
)
from kiva_stream.model.bounds import Bound, Place, parse_bound, parse_date, parse_place
from kiva_stream.model.ids import CustomerId
from kiva_stream.model.outcomes import DEAD_REASONS, Reason
from kiva_stream.model.positions import Position
from kiva_stream.observability import logs
from kiva_stream.observability.progress import OnProgress, Progress, ProgressLog
from kiva_stream.observability.scrubbing import Scrubber
from kiva_stream.primitives.lazy_import import lazy
from kiva_stream.settings import documentation, loading
from kiva_stream.settings.sections import LogSettings, Settings

if TYPE_CHECKING:
    from kiva_stream.commands import backfill as history
    from kiva_stream.commands import check as checks
    from kiva_stream.commands import dead_letters as dead
    from kiva_stream.commands import follow as following
    from kiva_stream.commands import forget as erasures
    from kiva_stream.commands import plan as plans
    from kiva_stream.commands import rewind as rewinds
    from kiva_stream.commands import setup as setups
    from kiva_stream.commands import status as statuses
    from kiva_stream.commands import sync_customer as trials
    from kiva_stream.verification import verify as verifying
else:  # each is loaded by the command that runs: `--help` and `sandbox` need none, and no command all
    history, checks, dead = map(lazy, ("commands.backfill", "commands.check", "commands.dead_letters"))
    following, erasures, plans = map(lazy, ("commands.follow", "commands.forget", "commands.plan"))
    rewinds, setups, statuses = map(lazy, ("commands.rewind", "commands.setup", "commands.status"))
    trials, verifying = map(lazy, ("commands.sync_customer", "verification.verify"))

T = TypeVar("T")
Args = TypeVarTuple("Args")

UNEXPECTED = 1
FOUND_SOMETHING = 7
BY_SIGNAL = 128  # plus the signal's number: 130 Ctrl-C, 143 SIGTERM
EXIT_CODES: dict[type[KivaStreamError], int] = {
    SettingsError: 2,
    SourceError: 3,
    AccountRefused: 4,
    CheckpointError: 5,
    HeldError: 6,
    DrainTimeoutError: UNEXPECTED,
}
CONFIG_FILE = Path("kiva_stream.toml")
CONFIG_HELP = "The settings; else $KIVA_STREAM_CONFIG, ./kiva_stream.toml, /etc/kiva_stream/kiva_stream.toml."
FAULT_HELP = (
    "What goes wrong, as /event:500-after:0.05:10; may be repeated. A path is /event, * or one below "
    "/api/3. Kinds: 500-before, 500-after, html-503, html-200, 429, 403, 402, success-0, hang, "
    "reset-before, reset-after."
)
BOUND = "day1|DATE|POSITION"
NONE = "none"
MAX_BIGINT = 2**63 - 1
TAGS = "tags"  # the phase in which nobody knows before how many differ
PHASES = ("contacts", "orders", "events", TAGS)

# A line that starts with \b and ends with an empty line keeps its line breaks.
EPILOG = (
    "\b\nSettings, in kiva_stream.toml (kiva-stream init writes one) or in the environment:\n"
    + "\n".join(f"  {line}" for line in documentation.help_lines())
)
commands = typer.Typer(
    name="kiva-stream",
    help="Streams a food-box shop's system log from PostgreSQL into ActiveCampaign.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # they show local variables, and with them secrets
)
dead_letters = typer.Typer(
    help="Look at what could not be delivered and why; replay it, or discard it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
commands.add_typer(dead_letters, name="dead-letters")
WIDE = 1_000  # columns, where nobody looks: a line stays a line
answers = Console(soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)


class Shell:
    """What the command of this process knows: where its settings are, what must not show in its errors."""

    def __init__(self) -> None:
        self.config: Path | None = None
        self.log = LogSettings()
        self.scrub = Scrubber()

    def load(self) -> Settings:
        """Read the settings and set up logging by them. Raises SettingsError."""
        loaded = loading.load(self.config, os.environ)
        self.set_up(loaded.log, loaded.secrets())
        return loaded

    def set_up(self, log: LogSettings, secrets: list[str]) -> None:
        """Set up logging."""
        self.log = log
        self.scrub = logs.configure(log, secrets)

    def exit(self, raised: Exception) -> NoReturn:
        """Say what went wrong, and leave with its exit code."""
        error = _first(raised)
        sentence = " ".join(str(error).split())
        if not isinstance(error, KivaStreamError):
            sentence = f"Unexpected {type(error).__name__}: {sentence} (log.level = 'debug' shows where)."
        if self.log.level == "debug":
            structlog.get_logger().exception("failed")
        typer.echo(self.scrub(sentence), err=True)
        sys.exit(exit_code(error))


AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Since = Annotated[str | None, typer.Option(metavar=BOUND, help="Where the history begins.")]
Until = Annotated[str | None, typer.Option(metavar=BOUND, help="Where it ends; else now.")]
EventsSince = Annotated[str | None, typer.Option(metavar="DATE", help="Older entries become no events.")]

OfReason = Annotated[
    str | None, typer.Option("--reason", metavar="REASON", help=f"One of: {', '.join(DEAD_REASONS)}.")
]
OfCustomer = Annotated[
    str | None, typer.Option("--customer", metavar="ID", help="Those of this customer's contact.")
]
Places = Annotated[list[str] | None, typer.Argument(metavar="[TXID:ID|order:ID]...", help="Just these.")]
AllLetters = Annotated[bool, typer.Option("--all", help="All that are not discarded.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask first.")]


def main() -> None:
    """Run the command of this process's arguments; leaves by SystemExit with the documented code."""
    shell = Shell()
    try:
        commands(obj=shell)
    except Exception as error:  # noqa: BLE001  here an error becomes a sentence and an exit code
        shell.exit(error)


def _first(error: Exception) -> Exception:
    """Return what is in a group: what was raised on purpose before what was not."""
    if not isinstance(error, ExceptionGroup):
        return error
    inner = [_first(each) for each in error.exceptions]
    return next((each for each in inner if isinstance(each, KivaStreamError)), inner[0])


def exit_code(error: Exception) -> int:
    """Return the documented exit code of an error."""
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), UNEXPECTED)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kiva_stream {__version__}")
        raise typer.Exit


@commands.callback()
def everywhere(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help=CONFIG_HELP)] = None,
    version: Annotated[  # noqa: ARG001  its callback is all it does
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Stream a food-box shop's system log from PostgreSQL into ActiveCampaign."""
    _shell(context).config = config


@commands.command()
def demo(
    context: typer.Context,
    entries: Annotated[int, typer.Option(min=1, help="Log entries of the generated history.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Another seed is another history.")] = 1,
) -> None:
    """Run everything locally, with nothing to configure.

    A generated shop, a local ActiveCampaign, setup, a backfill, and what arrived.
    """
    with _extra():
        from kiva_stream.commands import demo as demos  # noqa: PLC0415  a shop need not install what this needs

    _shell(context).set_up(LogSettings(), [])
    with _progress() as on_progress:
        summary = _run(demos.demo, entries, seed, on_progress)
    _answer_summary(summary)


@commands.command()
def init(
    context: typer.Context,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that is there.")] = False,
) -> None:
    """Write a commented kiva_stream.toml."""
    path = _shell(context).config or CONFIG_FILE
    if path.exists() and not force:
        raise SettingsError(f"{path} is there already: --force replaces it.")
    try:
        path.touch(mode=0o600)  # it will hold keys; one that was there keeps the mode it had until told
        path.chmod(0o600)
        path.write_text(documentation.example(), "utf-8")
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}.") from error
    typer.echo(f"{path} is written: fill in what has no # before it, then run `kiva-stream check`.")


@commands.command()
def check(context: typer.Context, as_json: AsJson = False) -> None:
    """Look whether all is ready, and say what to do.

    Settings, source contract, state schema and account. It sends nothing that leaves a trace.
    """
    loaded = _shell(context).load()
    report = CheckReport.of(_run(checks.check, loaded))
    _answer(report, as_json=as_json)
    raise typer.Exit(0 if report.ok else FOUND_SOMETHING)


@commands.command()
def setup(context: typer.Context) -> None:
    """Create what is missing; safe to repeat.

    The state schema; at ActiveCampaign the list, tags, fields, connection and event names.
    """
    loaded = _shell(context).load()
    for created in _run(setups.set_up, loaded) or ["nothing, all is there"]:
        typer.echo(f"set up: {created}")


@commands.command()
def plan(
    context: typer.Context,
    since: Since = None,
    until: Until = None,
    events_since: EventsSince = None,
    as_json: AsJson = False,
) -> None:
    """Show what a backfill would do, and send nothing.

    Entries by class and event, customers, orders, requests, dead letters; hours at the limits in the
    settings. What is there already is not counted as work; figures with "about" are estimates. A DATE is
    midnight of the site.
    """
    request = _request(since, until, events_since)
    _answer(_run(plans.plan, _shell(context).load(), request), as_json=as_json)


@commands.command()
def sync(
    context: typer.Context,
    customer: Annotated[str, typer.Option(metavar="ID", help="The customer's id at the shop.")],
    as_json: AsJson = False,
) -> None:
    """Bring one customer to ActiveCampaign, as a trial.

    Contact, paid orders and week tag, without starting automations; no events, no checkpoint. It shows what
    became of them, and holds the site meanwhile.
    """
    wanted = _customer("--customer", customer)
    _answer(_run(trials.sync_customer, _shell(context).load(), wanted), as_json=as_json)


@commands.command()
def backfill(
    context: typer.Context,
    since: Since = None,
    until: Until = None,
    events_since: EventsSince = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, and send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
) -> None:
    """Carry contacts, orders and history up to now, then exit. Run again, it goes on where it stopped.

    --since and --events-since are kept with the checkpoint. A DATE is midnight of the site.
    """
    request = _request(since, until, events_since)
    loaded = _shell(context).load()
    is_shown = sys.stdin.isatty() and sys.stdout.isatty()
    if dry_run or is_shown:
        answers.print(_run(plans.plan, loaded, request))
    if dry_run or (is_shown and not yes and not typer.confirm("Go ahead?")):
        return
    with _progress() as on_progress:
        summary = _run(history.backfill, loaded, request, on_progress)
    _answer_summary(summary)


@commands.command()
def follow(
    context: typer.Context,
    since: Annotated[
        str | None, typer.Option(metavar=BOUND, help="Where to begin, when there is no checkpoint yet.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait while another process holds the site, and then go on.")
    ] = False,
) -> None:
    """Carry what is left of the log, then what comes, for ever.

    What runs as a service. It goes on at a backfill's checkpoint. SIGTERM and Ctrl-C let what is in flight
    finish. A DATE is midnight of the site.
    """
    bound = _bound("--since", since)
    stopped = _run(partial(following.follow, wait=wait), _shell(context).load(), bound)
    if stopped.signal and (stopped.signal != signal.SIGTERM or stopped.was_cut_short):
        raise typer.Exit(BY_SIGNAL + stopped.signal)


@commands.command()
def forget(
    context: typer.Context,
    customer: Annotated[str, typer.Option(metavar="ID", help="The customer's id at the shop.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a person, at ActiveCampaign and here, and show a receipt.

    A tombstone stays, which keeps them out for good. It holds the site meanwhile: stop the service first.
    """
    wanted = _customer("--customer", customer)
    loaded = _shell(context).load()
    if sys.stdin.isatty() and not yes and not typer.confirm(f"Erase customer {customer} for good?"):
        return
    _answer(_run(erasures.forget, loaded, wanted), as_json=as_json)


@commands.command()
def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show where the site stands.

    It reads the state database alone, so it works beside a running backfill.
    """
    _answer(_run(statuses.status, _shell(context).load()), as_json=as_json)


@commands.command()
def verify(
    context: typer.Context,
    customer: Annotated[
        str | None, typer.Option(metavar="ID", help="Look at the contact of this customer alone.")
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Contacts to draw; else verify.sample.")] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Close the gaps of contacts, tags and orders.")
    ] = False,
    events: Annotated[
        bool, typer.Option("--events", help="With --repair: also missing events that would be listed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the shop, the state and ActiveCampaign, and print the gaps.

    A sample of contacts, unless --customer names one: their fields, list, week tag, orders, and events by
    their tracking logs. Without --repair it leaves no trace, and works beside a running process; with it, it
    holds the site meanwhile.
    """
    if events and not repair:
        raise SettingsError("--events belongs to --repair: give both, or none.")
    loaded = _shell(context).load()
    request = VerifyRequest(
        sample=sample or loaded.verify.sample,
        customer=None if customer is None else _customer("--customer", customer),
        repair=repair,
        events=events,
    )
    report = _run(verifying.verify, loaded, request)
    _answer(report, as_json=as_json)
    raise typer.Exit(FOUND_SOMETHING if report.gaps else 0)


@dead_letters.command("list")
def list_letters(
    context: typer.Context,
    reason: OfReason = None,
    customer: OfCustomer = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Show at most so many; else state.dead_letter_sample.")
    ] = None,
    oldest: Annotated[bool, typer.Option("--oldest", help="The oldest first, not the newest.")] = False,
    as_json: AsJson = False,
) -> None:
    """List them, and how many there are by reason.

    Refused orders are among them, as order:ID. It works beside a running process.
    """
    loaded, request = _shell(context).load(), _letter_request(reason, customer)
    shown = limit or loaded.state.dead_letter_sample
    _answer(_run(partial(dead.dead_letters, oldest_first=oldest), loaded, request, shown), as_json=as_json)


@dead_letters.command("show")
def show_letter(
    context: typer.Context,
    place: Annotated[str, typer.Argument(metavar="TXID:ID|order:ID", help="As the list names it.")],
    as_json: AsJson = False,
) -> None:
    """Show all about one, its entry as the shop has it now, and what can be done."""
    _answer(_run(dead.show, _shell(context).load(), _place(place)), as_json=as_json)


@dead_letters.command("replay")
def replay_letters(
    context: typer.Context,
    places: Places = None,
    reason: OfReason = None,
    customer: OfCustomer = None,
    all_: AllLetters = False,
    as_json: AsJson = False,
) -> None:
    """Deliver them again, in the order of the log among themselves.

    When a process holds the site, that one does it. A discarded one has to be named by its place.
    """
    request = _letter_request(reason, customer, places, is_all=all_)
    report = _run(dead.replay, _shell(context).load(), request)
    _answer(report, as_json=as_json)
    if report.stopped_by is not None:
        raise typer.Exit(BY_SIGNAL + report.stopped_by)


@dead_letters.command("discard")
def discard_letters(
    context: typer.Context,
    places: Places = None,
    reason: OfReason = None,
    customer: OfCustomer = None,
    all_: AllLetters = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Mark them: they stay dead, and nobody need look at them."""
    request = _letter_request(reason, customer, places, is_all=all_)
    loaded = _shell(context).load()
    if _is_asked(yes=yes):
        count = _run(dead.count, loaded, request)
        if not typer.confirm(f"Discard {count:,} dead letters?"):
            return
    _answer(_run(dead.discard, loaded, request), as_json=as_json)


@commands.command()
def rewind(
    context: typer.Context,
    to: Annotated[
        str, typer.Option(metavar="day1|POSITION", help="Entries above it are read again; it is not.")
    ],
    resend: Annotated[
        bool, typer.Option("--resend", help="Send again what the ledger holds, and try anew what is dead.")
    ] = False,
    events_since: Annotated[
        str | None,
        typer.Option(metavar="DATE|none", help="From now on older entries become no events; else as it was."),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Move the checkpoint back; the next run reads on from there.

    What the ledger holds is not sent again, unless --resend. Counts begin anew. It also changes
    --events-since, and how the log is read when source.horizon was changed. It holds the site meanwhile.
    """
    request = RewindRequest(
        to=_position("--to", to),
        resend=resend,
        events_since=None if events_since == NONE else _date("--events-since", events_since),
        forget_events_since=events_since == NONE,
    )
    loaded = _shell(context).load()
    if _is_asked(yes=yes):
        answers.print(_run(rewinds.preview, loaded, request))
        if not typer.confirm("Go ahead?"):
            return
    _answer(_run(rewinds.rewind, loaded, request), as_json=as_json)


@commands.command()
def generate(
    context: typer.Context,
    entries: Annotated[int, typer.Option(min=1, help="Log entries of its sites together.")],
    dsn: Annotated[str, typer.Option(metavar="DSN", help="An empty database, to be filled.")],
    seed: Annotated[int, typer.Option(help="Another seed is another history.")] = 1,
    sites: Annotated[int, typer.Option(min=1, max=3, help="How many sites share the log.")] = 1,
    truth: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what must become of each entry.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fill a source database with a realistic history."""
    with _extra():
        from kiva_stream.sandbox import generator  # noqa: PLC0415  as for demo

    _shell(context).set_up(LogSettings(), [dsn])
    with _counting("entries", entries) as count:
        made = _run(partial(generator.generate, sites=sites, truth=truth, progress=count), dsn, entries, seed)
    if as_json:
        typer.echo(msgspec.json.encode(made))
    else:
        typer.echo(
            f"{made.entries:,} entries, {made.accounts:,} accounts, {made.orders:,} orders; "
            f"{sum(made.events.values()):,} event entries, {made.contacts:,} contacts expected"
        )


@commands.command()
def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="On loopback; 0 = any free one.")] = 0,
    latency_ms: Annotated[float, typer.Option(min=0, help="There and back, each request.")] = 0,
    jitter_ms: Annotated[float, typer.Option(min=0, help="At most this much is added to it.")] = 0,
    fault: Annotated[
        list[str] | None, typer.Option(metavar="PATH:KIND:SHARE[:COUNT]", help=FAULT_HELP)
    ] = None,
) -> None:
    """Serve a local ActiveCampaign until Ctrl-C.

    Its address and its keys are printed as one line of JSON.
    """
    with _extra():
        from kiva_stream.sandbox.activecampaign import command, faults  # noqa: PLC0415  as for demo

    try:
        wanted = [faults.parse_fault(text) for text in fault or []]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--fault") from None
    _run(command.run, port, latency_ms, jitter_ms, wanted)


@commands.command()
def drill(
    context: typer.Context,
    entries: Annotated[int, typer.Option(min=1_000, help="Log entries of each history.")] = 5_000,
    kills: Annotated[int, typer.Option(min=1, help="How often a process is killed.")] = 3,
    seed: Annotated[
        list[int] | None, typer.Option(help="Another seed is another history; may be repeated. Else 1.")
    ] = None,
    outage_s: Annotated[float, typer.Option(min=0.1, help="How long what is taken away stays away.")] = 5,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this scenario; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pull every plug, and show that nothing is missing.

    Generated histories are carried to local ActiveCampaigns while processes are killed and frozen, answers go
    wrong, databases stop; what arrived is compared with the truth. Nothing of the shop's own is touched.
    """
    with _extra():
        from kiva_stream.sandbox import drill as drills  # noqa: PLC0415  as for demo

    _shell(context).set_up(LogSettings(), [])
    wanted = drills.Intensity(kills=kills, outage_s=outage_s)

    def on_row(row: drills.Row) -> None:
        logs.log.info("drilled", fault=row.fault, seed=row.seed, ok=row.ok)

    report = _run(drills.drill, entries, wanted, seed or [1], only or [], on_row)
    _answer(report, as_json=as_json)
    raise typer.Exit(0 if report.ok else FOUND_SOMETHING)


def _shell(context: typer.Context) -> Shell:
    return context.ensure_object(Shell)


@contextmanager
def _extra() -> Iterator[None]:
    """Name the extra that a command needs. Raises SettingsError when it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise SettingsError(f"{error.name} is missing: pip install 'kiva-stream[demo]' brings it.") from error


def _run(work: Callable[[Unpack[Args]], Awaitable[T]], *args: *Args) -> T:
    """Run a coroutine function to its end, on the quickest event loop there is."""
    return anyio.run(work, *args, backend_options={"use_uvloop": sys.platform == "linux"})


def _answer(report: msgspec.Struct, *, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode(report))
    else:
        answers.print(report)


def _answer_summary(summary: Summary) -> None:
    answers.print(summary)
    if summary.stopped_by is not None:
        raise typer.Exit(BY_SIGNAL + summary.stopped_by)


def _request(since: str | None, until: str | None, events_since: str | None) -> BackfillRequest:
    return BackfillRequest(
        since=_bound("--since", since),
        until=_bound("--until", until),
        events_since=_date("--events-since", events_since),
    )


def _bound(option: str, text: str | None) -> Bound | None:
    try:
        return None if text is None else parse_bound(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint=option) from None


def _date(option: str, text: str | None) -> date | None:
    try:
        return None if text is None else parse_date(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a date (YYYY-MM-DD).", param_hint=option) from None


def _customer(option: str, text: str) -> CustomerId:
    if not re.fullmatch(r"[0-9]{1,19}", text) or not 0 < int(text) <= MAX_BIGINT:
        raise typer.BadParameter(f"{text!r} is not the id of a customer (a number).", param_hint=option)
    return CustomerId(int(text))


def _is_asked(*, yes: bool) -> bool:
    """Return whether somebody is there who has to agree first."""
    return sys.stdin.isatty() and sys.stdout.isatty() and not yes


def _letter_request(
    reason: str | None, customer: str | None, places: list[str] | None = None, *, is_all: bool | None = None
) -> LetterRequest:
    """Return which dead letters are meant; where `is_all` is told, by something that says so."""
    if is_all is not None and [bool(places), bool(reason or customer), is_all].count(True) != 1:
        raise typer.BadParameter("name places, or --reason and --customer, or --all.")
    return LetterRequest(
        reason=None if reason is None else _reason(reason),
        customer=None if customer is None else _customer("--customer", customer),
        places=tuple(map(_place, places or ())),
    )


def _reason(text: str) -> Reason:
    if text not in DEAD_REASONS:
        raise typer.BadParameter(f"{text!r} is none of: {', '.join(DEAD_REASONS)}.", param_hint="--reason")
    return Reason(text)


def _place(text: str) -> Place:
    try:
        return parse_place(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}; an order is order:ID.") from None


def _position(option: str, text: str) -> Position:
    bound = _bound(option, text)
    if not isinstance(bound, Position):
        raise typer.BadParameter(f"{text!r} is neither day1 nor a position (TXID:ID).", param_hint=option)
    return bound


@contextmanager
def _counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Give a function that shows a count: as a bar on a terminal, not at all elsewhere."""
    with Bars(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        task = bars.add_task(what, total=total)
        yield lambda count: bars.update(task, completed=count)


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """Give a hook: bars on a terminal, log lines elsewhere."""
    if not sys.stderr.isatty():
        yield ProgressLog()
        return
    columns = (TextColumn("{task.description:8}"), BarColumn(), TextColumn("{task.fields[far]}"))
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks = {phase: bars.add_task(phase, total=None, far="", visible=False) for phase in PHASES}

        def show(progress: Progress) -> None:
            for phase in _before(progress.phase):  # how much there would be was an estimate
                bars.update(tasks[phase], total=1, completed=1)
            is_counted = progress.phase != TAGS
            if progress.phase in tasks:
                bars.update(
                    tasks[progress.phase],
                    completed=progress.done if is_counted else 0,
                    total=progress.total if is_counted else None,
                    far=_far(progress) if is_counted else "those that differ",
                    visible=True,
                )

        yield show


def _before(phase: str) -> tuple[str, ...]:
    """Return the phases that are over in a phase."""
    return PHASES[: PHASES.index(phase)] if phase in PHASES else PHASES


def _far(progress: Progress) -> str:
    """Say how far a phase is: done, in all, rate, time left."""
    total = f" of {progress.total:,}" if progress.total is not None else ""
    left = f", {timedelta(seconds=round(progress.left_s))} left" if progress.left_s else ""
    return f"{progress.done:,}{total}, {progress.per_second:,.0f}/s{left}"
