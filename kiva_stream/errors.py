"""Errors, named by what the caller should do about them. Their text is the sentence the operator reads."""


class KivaStreamError(Exception):
    """Anything kiva_stream raises on purpose; its text says what happened and what to do."""


class SettingsError(KivaStreamError):
    """A setting or an argument is missing, unknown, of the wrong type, or contradicts the checkpoint."""


class SourceError(KivaStreamError):
    """The shop's database cannot be read, or is not to contract."""


class CheckpointError(KivaStreamError):
    """The state schema cannot be read or written."""


class StateBusyError(CheckpointError):
    """The state schema cannot be read or written just now; it may pass."""


class HeldError(KivaStreamError):
    """Another process holds the site, or another site holds the account."""


class DrainTimeoutError(KivaStreamError):
    """What was in flight did not finish within the drain time-out."""


class DrainedError(KivaStreamError):
    """A drain began before something was done that the next run does as well."""


class DeliveryError(KivaStreamError):
    """ActiveCampaign did not do what was asked."""


class TryLater(DeliveryError):  # noqa: N818  named by what to do about it
    """Not done, and trying again may help.

    `after_s` is the wait ActiveCampaign asked for (its Retry-After), None when it named none.
    """

    def __init__(self, message: str, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s


class Rejected(DeliveryError):  # noqa: N818
    """ActiveCampaign refused this one object for good; `reply` is what it said, without secrets."""

    def __init__(self, message: str, reply: str = "") -> None:
        super().__init__(message)
        self.reply = reply


class RowsRejected(DeliveryError):  # noqa: N818
    """ActiveCampaign refused a whole import because of some rows: `reasons` by index, from 0."""

    def __init__(self, message: str, reasons: dict[int, str]) -> None:
        super().__init__(message)
        self.reasons = reasons


class AddressTaken(Rejected):
    """Another contact has the address that a contact was to get."""


class ContactGone(Rejected):
    """ActiveCampaign has no contact of this id (any more)."""


class OrdersRejected(DeliveryError):  # noqa: N818
    """ActiveCampaign refused a whole batch of orders: `reasons` by order id, empty when it named none."""

    def __init__(self, message: str, reasons: dict[int, str], reply: str = "") -> None:
        super().__init__(message)
        self.reasons = reasons
        self.reply = reply


class BatchTooLarge(DeliveryError):  # noqa: N818
    """ActiveCampaign refused a batch of orders for its size."""


class AccountRefused(DeliveryError):  # noqa: N818
    """ActiveCampaign refuses the key or the account, whatever is asked."""


class UnknownOutcome(DeliveryError):  # noqa: N818
    """Sent, and no answer that says whether it was done."""
