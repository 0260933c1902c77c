"""The texts of entries that are no events: sync-only ones and noise."""

from __future__ import annotations

from kiva_stream.sandbox.generator import words
from kiva_stream.sandbox.generator.event_texts import money
from kiva_stream.sandbox.generator.scene import Scene, Text

STACK_FRAMES = 240  # about 20 KB
LONG_STACK_SHARE = 0.02


def order_generated(s: Scene) -> Text:
    """Write that the weekly cycle made an order."""
    o = s.order
    data = f'{{"order_id":{o.id},"week_start":"{o.week}","delivery_date":"{o.delivery}"}}'
    return Text("order.generated", f"Order generated: #{o.id} for week of {o.week}", data)


def order_closed(s: Scene) -> Text:
    """Write that the cut-off has passed."""
    return Text("order.closed", f"Order closed: #{s.order.id}", f'{{"order_id":{s.order.id}}}')


def order_edited(s: Scene) -> Text:
    """Write that staff changed an order."""
    o, what = s.order, s.draw.pick(("items", "price", "delivery date"))
    data = f'{{"order_id":{o.id},"changed":"{what}"}}'
    return Text("admin.order.edit", f"Order #{o.id} edited: {what}", data)


def customer_edited(s: Scene) -> Text:
    """Write that staff changed a customer account."""
    what = s.draw.pick(("phone", "stop date", "box", "shipping notes"))
    return Text("admin.customer.edit", f"Customer record edited: {what}", f'{{"changed":"{what}"}}')


def payment_failed(s: Scene) -> Text:
    """Write that the gateway refused a payment; the order stays unpaid."""
    data = f'{{"order_id":{s.order.id},"gateway":"stripe","error":"card_declined"}}'
    return Text("payment.failed", f"Payment failed: order #{s.order.id}, card declined", data)


def order_refunded(s: Scene) -> Text:
    """Write that a paid order was refunded."""
    o = s.order
    data = f'{{"order_id":{o.id},"total_cents":{o.total_cents}}}'
    return Text("order.refund", f"Refund of order #{o.id}: ${money(o.total_cents)}", data)


def balance_changed(s: Scene) -> Text:
    """Write that a credit was given."""
    cents = 100 * (1 + s.draw.below(20))
    return Text(
        "customer.balance", f"Credit of ${money(cents)} given: referral", f'{{"amount_cents":{cents}}}'
    )


def tag_changed(s: Scene) -> Text:
    """Write that a tag of the shop's own was added or removed."""
    tag, tags = s.draw.pick(words.TAGS), s.customer.tags
    if tag in tags:
        tags.remove(tag)
        return Text("customer.tag", f"Tag removed: {tag}", f'{{"tag":"{tag}","change":"remove"}}')
    tags.append(tag)
    return Text("customer.tag", f"Tag added: {tag}", f'{{"tag":"{tag}","change":"add"}}')


def paused(_: Scene) -> Text:
    """Write that deliveries were paused."""
    return Text("customer.pause", "Subscription paused")


def resumed(_: Scene) -> Text:
    """Write that deliveries were resumed."""
    return Text("customer.resume", "Subscription resumed")


def email_changed(s: Scene) -> Text:
    """Write that the customer account got another address."""
    before = s.customer.earlier_addresses[-1].key if s.customer.earlier_addresses else None
    data = f'{{"old":"{before or ""}","new":{s.mail}}}'
    return Text("customer.email.change", "Email changed", data)


def reactivated(_: Scene) -> Text:
    """Write that a cancelled subscription was reactivated."""
    return Text("customer.reactivate", "Subscription reactivated", '{"from":"cancelled"}')


def deleted(_: Scene) -> Text:
    """Write that a customer account was archived as dead."""
    return Text("customer.delete", "Account archived", '{"status":"dead"}')


def erased(_: Scene) -> Text:
    """Write that a customer was erased on request: the row goes, its log entries stay."""
    return Text("customer.erase", "Account erased on request")


def menu_sent(s: Scene) -> Text:
    """Write that the weekly menu was mailed; one entry a recipient."""
    message = f"Weekly menu email sent: week of {s.calendar.mondays[0]}"
    return Text("email.menu", message, '{"template":"weekly_menu"}')


_MAILS = (
    Text("email.confirmation", "Order confirmation email sent", '{"template":"confirmation"}'),
    Text("email.receipt", "Receipt email sent", '{"template":"receipt"}'),
    Text("email.billing_failed", "Failed billing email sent", '{"template":"billing_failed"}'),
    Text("email.magic_link", "Magic link requested", '{"ttl_min":60}'),
    Text("email.password_reset", "Password reset requested", '{"ttl_min":60}'),
    Text("email.password_reset", "Reset password requested", '{"ttl_min":60}'),
)


def mail_sent(s: Scene) -> Text:
    """Write that another mail was sent."""
    return s.draw.pick(_MAILS)


def payment_tried(s: Scene) -> Text:
    """Write that the gateway was called; no digits are logged."""
    action = s.draw.pick(("payment.attempt", "payment.authorise", "payment.token"))
    return Text(action, f"Gateway call: {action}", f'{{"order_id":{s.order.id},"gateway":"stripe"}}')


def cron(s: Scene) -> Text:
    """Write that a cron job started or finished."""
    job, phase = s.draw.pick(("labels", "routes", "mailer", "backup")), s.draw.pick(("start", "finish"))
    return Text(f"cron.{phase}", f"Cron {job} {phase}", f'{{"job":"{job}"}}')


def recalculated(s: Scene) -> Text:
    """Write that a robot changed an order."""
    o = s.order
    if s.draw.chance(0.5):
        return Text("order.auto_sub", f"Automatic substitution in order #{o.id}", f'{{"order_id":{o.id}}}')
    return Text("order.price_recalculated", f"Price recalculated: order #{o.id}", f'{{"order_id":{o.id}}}')


def debug(s: Scene) -> Text:
    """Write a page timing or a deprecation."""
    if s.draw.chance(0.5):
        return Text("debug.timing", f"Page /menu took {s.draw.below(900)} ms", "{}")
    return Text("notice.deprecated", "Deprecated: each() is gone in PHP 8", "{}")


def staff_login(s: Scene) -> Text:
    """Write that staff logged in or looked at a customer; one text resembles a log-in of the customer."""
    staff, action = s.draw.pick(words.STAFF), s.draw.pick(("admin.login", "admin.view", "admin.login_as"))
    if action == "admin.login_as":
        return Text(action, f"{staff} logged in as customer #{s.customer.id}", "{}")
    verb = "logged in" if action == "admin.login" else f"viewed customer #{s.customer.id}"
    return Text(action, f"{staff} {verb}", "{}")


_STACK = "".join(
    f"#{n} /var/www/lib/frame{n:03d}.php({n * 7}): Order->load('customer cancelled', {n})\n"
    for n in range(STACK_FRAMES)
)


def error(s: Scene) -> Text:
    """Write an error in the shop's software, sometimes with a long stack trace in the message."""
    action = s.draw.pick(("error.exception", "warning.slow_query"))
    message = f"Uncaught exception in order.php\nLogged in user: {s.draw.below(9999)}"
    if s.draw.chance(LONG_STACK_SHARE):
        return Text(action, f"{message}\n{_STACK}", "{}")
    return Text(action, message, "{}", stack=_STACK[:400])


def login_failed(s: Scene) -> Text:
    """Write that a log-in failed."""
    data = f'{{"email":"nobody{s.draw.below(9999)}@visitors.example"}}'
    return Text("login.failed", "Login failed: wrong password", data)


def visitor(s: Scene) -> Text:
    """Write that a visitor without a customer account did something."""
    if s.draw.chance(0.5):
        return Text("visitor.zip_missed", f"Zip not served: {60000 + s.draw.below(900)}", "{}")
    data = f'{{"email":"maybe{s.draw.below(9999)}@visitors.example"}}'
    return Text("visitor.signup_abandoned", "Signup abandoned", data)


_NOTES = (
    "Called Ann, she said she cancelled",
    "Note: Order Completed email never reached her",
    "Note: says she logged in via cookie and saw nothing",
    "Note: asked to have the box left at the side porch",
    "Note: 'Customer cancelled' was a mistake, see above",
    "Note: loves the Added Birthday card",
)


def note(s: Scene) -> Text:
    """Write a free text by staff, which may quote an event."""
    return Text("customer.note.add", s.draw.pick(_NOTES), '{"kind":"phone"}')


def integration(s: Scene) -> Text:
    """Write that another system was synchronised: routing, SMS, ActiveCampaign."""
    system = s.draw.pick(("routing", "sms", "activecampaign"))
    return Text(f"integration.{system}", f"Integration {system}: sync finished", "{}")
