"""Errors, named by what the caller should do about them. Their text is the sentence that the operator reads.

The errors below DeliveryError say what became of a request to ActiveCampaign; the others end a command.
"""

from collections.abc import Mapping


class KivaStreamError(Exception):
    """Any error that kiva_stream raises on purpose; its text says what happened and what to do."""


class SettingsError(KivaStreamError):
    """A setting or an argument is missing, unknown, of the wrong type, or contradicts the checkpoint."""


class SourceError(KivaStreamError):
    """The shop's database cannot be read, or lacks a table or column that kiva_stream needs."""


class CheckpointError(KivaStreamError):
    """The state schema cannot be read or written."""


class StateBusyError(CheckpointError):
    """The state schema cannot be read or written just now; another attempt may succeed."""


class HeldError(KivaStreamError):
    """Another process holds the site, or another site holds the account."""


class DrainTimeoutError(KivaStreamError):
    """The events and requests in flight did not finish within the drain time-out."""


class DrainedError(KivaStreamError):
    """A drain began before this was done; the next run does it."""


class IdsChanged(KivaStreamError):  # noqa: N818  named by what has to be read anew
    """The account's connection, list, fields or tags have other ids than those that are in use."""


class DeliveryError(KivaStreamError):
    """ActiveCampaign did not do what was asked, or perhaps did not."""


class TryLater(DeliveryError):  # noqa: N818  named by what to do about it
    """The request was not carried out, and another attempt may succeed.

    `after_s` is the wait in seconds that ActiveCampaign asked for (its Retry-After), None without one.
    `was_sent`: the request may have reached ActiveCampaign, so that something in it may be the cause.
    """

    def __init__(self, message: str, after_s: float | None = None, *, was_sent: bool = True) -> None:
        super().__init__(message)
        self.after_s = after_s
        self.was_sent = was_sent

    @property
    def is_unanswered(self) -> bool:
        """Whether a request was sent and got no answer; throttling is an answer."""
        return self.was_sent and self.after_s is None


class Unanswered(TryLater):
    """A request was sent as often as the caller allows and got no answer; a record in it may be the cause."""


EVENTS = "events"  # the `what` of RecordsHeld of events, by contact


class RecordsHeld(DeliveryError):  # noqa: N818  named by what was done
    """ActiveCampaign did not take these records; they are to be tried again. `why` has its last replies.

    It gives no answer for them, though it does for others, or it refused them without naming a value, or it
    refuses the kind of request altogether. The others of the call were written. `is_in_doubt`: these may have
    been, too, and another try could repeat them. `sent` is how often an event was sent.
    """

    def __init__(
        self, what: str, why: Mapping[int, str], *, is_in_doubt: bool = False, sent: int = 0
    ) -> None:
        said = "; ".join(dict.fromkeys(why.values()))
        super().__init__(f"{what} {', '.join(map(str, sorted(why)))} are held: {said}")
        self.what = what
        self.why = why
        self.is_in_doubt = is_in_doubt
        self.sent = sent


class ForeignAnswer(TryLater):
    """Another server than ActiveCampaign's API answered: by a redirect, or by a page instead of JSON."""


class Rejected(DeliveryError):  # noqa: N818
    """ActiveCampaign refused this one object for good; `reply` quotes its answer without secrets."""

    def __init__(self, message: str, reply: str = "") -> None:
        super().__init__(message)
        self.reply = reply


class RowsRejected(DeliveryError):  # noqa: N818
    """ActiveCampaign refused a whole import because of some rows.

    `reasons` are those of the rows that may be at fault, by index from 0.
    """

    def __init__(self, message: str, reasons: dict[int, str]) -> None:
        super().__init__(message)
        self.reasons = reasons


class AddressTaken(Rejected):
    """The address that a contact should get belongs to another contact."""


class ContactGone(Rejected):
    """ActiveCampaign has no contact of this id; it may have been deleted."""


class OrdersRejected(DeliveryError):  # noqa: N818
    """ActiveCampaign refused a batch of orders; `reasons` are by order id, empty if it named no order."""

    def __init__(self, message: str, reasons: dict[int, str], reply: str = "") -> None:
        super().__init__(message)
        self.reasons = reasons
        self.reply = reply


class BatchTooLarge(DeliveryError):  # noqa: N818
    """ActiveCampaign refused a batch of orders for its size."""


class AccountRefused(DeliveryError):  # noqa: N818
    """ActiveCampaign refuses the key or the account, or a kind of call altogether."""


class KindRefused(AccountRefused):
    """ActiveCampaign refuses a kind of request for the account's sake, and answers others."""


class FieldRefused(KindRefused):
    """ActiveCampaign refuses a custom field of contacts, and answers requests without it."""


class WrongUrl(AccountRefused):
    """`api_url` is not the address of ActiveCampaign's API."""


class PermissionRefused(KindRefused):
    """One call is refused with a 403, although the key is accepted for another; its body may be the cause."""


class UnknownOutcome(DeliveryError):  # noqa: N818
    """The request may have been sent, and no answer says whether it was carried out."""
