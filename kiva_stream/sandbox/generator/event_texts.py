"""The texts of the 42 event lines, as a shop with a structured log writes them.

Each function takes the scene, changes its customer and order as the text says, and returns the text.
"""

from __future__ import annotations

from collections.abc import Callable

from kiva_stream.sandbox.generator import words
from kiva_stream.sandbox.generator.clock import MINUTE, SECOND, instant
from kiva_stream.sandbox.generator.population import NO_CUSTOMER
from kiva_stream.sandbox.generator.scene import Scene, Text

Writer = Callable[[Scene], Text]

FREQUENCIES = {1: "every week", 2: "every other week", 3: "every 3 weeks", 4: "every 4 weeks"}
# A change takes another value, by these weights per mille. Weights equal to the shares of the values would
# wear down the most frequent ones: weight x (1000 - weight) is in proportion to the share, so that as many
# customers change to a value as from it.
FREQUENCY_CHANGES = (569, 376, 16, 39)
BOX_CHANGES = (290, 541, 125, 44)
AUTO_CANCEL_SHARE = 0.25
FUTURE = 2087  # a year nobody is born in while this is in use
UNKNOWN_YEAR_SHARE = 0.25


def money(cents: int) -> str:
    """Write cents as an amount, two decimals."""
    return f"{cents / 100:.2f}"


def _visitor_or_usual(s: Scene) -> str:
    return "visitor" if s.customer is NO_CUSTOMER else ""


def delivery_reminder_sent(s: Scene) -> Text:
    """Event line 1: Delivery Today Reminder Sent."""
    o = s.order
    return Text(
        "email.delivery_today",
        f"Delivery Today Reminder Email Sent: order #{o.id}",
        f'{{"order_id":{o.id},"delivery_date":"{o.delivery}","email":{s.mail}}}',
        f"order={o.id}; delivery={o.delivery}; ",
    )


def new_signup(s: Scene) -> Text:
    """Event line 2: New Customer Signup."""
    a = s.customer
    box, weeks, source = a.box or words.BOXES[0], a.frequency or 1, s.draw.pick(words.SOURCES)
    start = s.calendar.date(1, a.weekday)
    return Text(
        "signup.complete",
        f"New customer signup: {a.name}, {box.name}, {FREQUENCIES[weeks]}",
        f'{{"email":{s.mail},"box_type":"{box.code}","frequency_weeks":{weeks},"start_date":"{start}",'
        f'"zip":"{a.zip}","source":"{source}","opt_in":{"true" if a.opt_in else "false"}}}',
        f"box={box.code}; freq={weeks}; start={start}; source={source}; ",
    )


def magic_link_expired(s: Scene) -> Text:
    """Event line 3: Expired magic link login failed.

    The link was sent half a minute more than whole minutes ago: all clocks agree on its age in minutes.
    """
    minutes = 61 + s.draw.below(600)
    sent = instant(s.now_ms - minutes * MINUTE - 30 * SECOND)
    return Text(
        "login.magic_link.expired",
        "Login via expired magic link failed",
        f'{{"email":{s.mail},"sent_at":"{sent}","ttl_min":60,"ip":"{s.ip}"}}',
        f"age_min={minutes}; ",
        actor=_visitor_or_usual(s),
    )


def login(s: Scene) -> Text:
    """Event line 4: Logged in."""
    return Text("login.password", "Logged in", f'{{"ip":"{s.ip}","ua":"Mozilla/5.0"}}')


def login_cookie(s: Scene) -> Text:
    """Event line 5: Logged in via cookie."""
    return Text("login.cookie", "Logged in via cookie", f'{{"ip":"{s.ip}"}}')


def login_magic_link(s: Scene) -> Text:
    """Event line 6: Logged in via magic link."""
    template = s.draw.pick(words.TEMPLATES)
    data = f'{{"ip":"{s.ip}","template":"{template}"}}'
    return Text("login.magic_link", "Logged in via magic link", data, f"template={template}; ")


def logout(_: Scene) -> Text:
    """Event line 7: Logged out."""
    return Text("logout", "Logged out")


def sub_made(s: Scene) -> Text:
    """Event line 8: Made a substitution."""
    o, out, new, qty = s.order, s.draw.pick(words.PRODUCE), s.draw.pick(words.PRODUCE), 1 + s.draw.below(2)
    if len(o.subs) < o.menu_items:
        o.subs.append((out, new, qty))
    return Text(
        "order.sub",
        f"Made a substitution: 1 {out.name} -> {qty} {new.name} (order #{o.id})",
        f'{{"order_id":{o.id},"removed":{{"product_id":{out.id},"name":"{out.name}","qty":1}},'
        f'"added":{{"product_id":{new.id},"name":"{new.name}","qty":{qty}}},"cost_delta_cents":-5}}',
        f"order={o.id}; out={out.name}; in={new.name}; ",
    )


def sub_undone(s: Scene) -> Text:
    """Event line 9: Made an un-substition."""
    o = s.order
    out, new, qty = o.subs.pop() if o.subs else (words.PRODUCE[0], words.PRODUCE[1], 1)
    return Text(
        "order.unsub",
        f"Made an un-substition: {out.name} restored (order #{o.id})",
        f'{{"order_id":{o.id},"restored":{{"product_id":{out.id},"name":"{out.name}","qty":1}},'
        f'"removed":{{"product_id":{new.id},"name":"{new.name}","qty":{qty}}}}}',
        f"order={o.id}; restored={out.name}; ",
    )


def addon_added(s: Scene) -> Text:
    """Event line 10: Added add-on to order."""
    o, product, qty = s.order, s.draw.pick(words.PANTRY), 1 + s.draw.below(2)
    o.addons.append((product, qty))
    price = money(product.price_cents)
    return Text(
        "order.addon.add",
        f"Added add-on to order: {qty} x {product.name} ${price} (order #{o.id})",
        f'{{"order_id":{o.id},"product_id":{product.id},"name":"{product.name}","qty":{qty},'
        f'"unit_price_cents":{product.price_cents}}}',
        f"order={o.id}; item={product.name}; qty={qty}; price={price}; ",
    )


def item_deleted(s: Scene) -> Text:
    """Event line 11: Deleted item from order."""
    o = s.order
    product, qty = o.addons.pop() if o.addons else (s.draw.pick(words.PRODUCE), 1)
    category = "menu" if product.classification == "produce" else "addon"
    return Text(
        "order.item.delete",
        f"Deleted item from order: {product.name} (order #{o.id})",
        f'{{"order_id":{o.id},"product_id":{product.id},"name":"{product.name}","qty":{qty},'
        f'"category":"{category}"}}',
        f"order={o.id}; item={product.name}; cat={category}; ",
    )


def promo_signup(s: Scene) -> Text:
    """Event line 12: New Promo Customer Signup."""
    code = s.draw.pick(words.PROMO_CODES)
    data = f'{{"email":{s.mail},"promo_code":"{code}","zip":"{s.customer.zip}"}}'
    return Text("signup.promo", f"New promo customer signup: {code}", data, f"promo={code}; ")


def order_created_welcome(s: Scene) -> Text:
    """Event line 13: Created order from welcome page."""
    o = s.order
    return Text(
        "order.create.welcome",
        f"Customer created order from welcome page: #{o.id}",
        f'{{"order_id":{o.id},"week_start":"{o.week}","delivery_date":"{o.delivery}","box_type":"{o.box.code}"}}',
        f"order={o.id}; delivery={o.delivery}; box={o.box.code}; ",
    )


def order_box_changed(s: Scene) -> Text:
    """Event line 14: Customer changed box."""
    o, before, after = s.order, s.order.box, s.draw.pick(words.BOXES)
    if o.id:
        o.box = after
    return Text(
        "order.box.change",
        f"Customer changed box: {before.code.title()} -> {after.code.title()} (order #{o.id})",
        f'{{"order_id":{o.id},"from":"{before.code}","to":"{after.code}"}}',
        f"order={o.id}; from={before.code}; to={after.code}; ",
    )


def order_skipped(s: Scene) -> Text:
    """Event line 15: Order skipped."""
    o, reason = s.order, s.draw.pick(words.SKIP_REASONS)
    return Text(
        "order.skip",
        f"Order skipped: #{o.id} (week of {o.week})",
        f'{{"order_id":{o.id},"week_start":"{o.week}","reason":"{reason}"}}',
        f"order={o.id}; week={o.week}; reason={reason}; ",
    )


def customer_cancelled(s: Scene) -> Text:
    """Event line 16: Customer cancelled, by the customers themselves."""
    reason, stop = s.customer.cancel_reason or words.CANCEL_REASONS[0], s.calendar.date(0, 5)
    return Text(
        "customer.cancel",
        f"Customer cancelled: {reason}",
        f'{{"reason":"{reason}","stop_date":"{stop}","by":"customer","lifetime_orders":{s.draw.below(60)}}}',
        f"reason={reason}; stop={stop}; ",
    )


def skip_considered(s: Scene) -> Text:
    """Event line 17: Thinking of skipping order."""
    o = s.order
    return Text(
        "order.skip.view",
        f"Customer thinking of skipping order #{o.id}",
        f'{{"order_id":{o.id},"week_start":"{o.week}"}}',
        f"order={o.id}; week={o.week}; ",
    )


def gift_certificate_used(s: Scene) -> Text:
    """Event line 18: Gift certificate used."""
    amount, left = 2500 * (1 + s.draw.below(4)), 25 * s.draw.below(200)
    return Text(
        "giftcert.redeem",
        f"Gift certificate used: ${money(amount)}",
        f'{{"code_last4":"{1000 + s.draw.below(9000)}","amount_cents":{amount},"balance_cents":{left}}}',
        f"amount={money(amount)}; left={money(left)}; ",
    )


def discount_code_used(s: Scene) -> Text:
    """Event line 19: Discount code used."""
    o, code, amount = s.order, s.draw.pick(words.DISCOUNT_CODES), 500 * (1 + s.draw.below(3))
    if o.id:
        o.discount_code = code
    return Text(
        "discount.apply",
        f"Discount code used: {code}",
        f'{{"code":"{code}","amount_cents":{amount},"order_id":{o.id}}}',
        f"code={code}; amount={money(amount)}; order={o.id}; ",
    )


def contact_form(s: Scene) -> Text:
    """Event line 20: Submitted Contact Form."""
    topic = s.draw.pick(words.TOPICS)
    return Text(
        "contact.form",
        f"Submitted Contact Form: {topic} question",
        f'{{"email":{s.mail},"topic":"{topic}","message":"Hello, customer cancelled? Please call me."}}',
        f"topic={topic}; ",
        actor=_visitor_or_usual(s),
    )


def gift_purchaser_activated(s: Scene) -> Text:
    """Event line 21: Gift purchaser activation."""
    return Text(
        "account.activate.gift_purchaser", "Gift purchaser account activation", f'{{"email":{s.mail}}}'
    )


def promo_activated(s: Scene) -> Text:
    """Event line 22: Promo account activation."""
    code, box, weeks = (
        s.draw.pick(words.PROMO_CODES),
        s.customer.box or words.BOXES[0],
        s.customer.frequency or 1,
    )
    return Text(
        "account.activate.promo",
        "Promo account activation",
        f'{{"promo_code":"{code}","box_type":"{box.code}","frequency_weeks":{weeks}}}',
        f"promo={code}; box={box.code}; freq={weeks}; ",
    )


def payment_info_updated(s: Scene) -> Text:
    """Event line 23: Updated Payment Info."""
    gateway = s.draw.pick(words.GATEWAYS)
    data = f'{{"gateway":"{gateway}","brand":"visa"}}'
    return Text("payment.method.update", "Updated Payment Info", data, f"gateway={gateway}; ")


def email_resubscribed(s: Scene) -> Text:
    """Event line 24: Re-subscribed to emails."""
    return Text("email.resubscribe", "Re-subscribed to emails", f'{{"email":{s.mail},"list":"all"}}')


def email_unsubscribed(s: Scene) -> Text:
    """Event line 25: Unsubscribed email."""
    mail, via = s.mail, s.draw.pick(("link", "account page", "reply"))
    message = f"Unsubscribed email {mail[1:-1]}" if mail != "null" else "Unsubscribed email"
    return Text("email.unsubscribe", message, f'{{"email":{mail},"via":"{via}"}}', f"via={via}; ")


def shipping_notes_updated(s: Scene) -> Text:
    """Event line 26: Updated Shipping Notes."""
    data = f'{{"old":"gate {s.draw.below(99)}","new":"side porch"}}'
    return Text("customer.shipping_notes", "Updated Shipping Notes", data)


def schedule_delivery_added(s: Scene) -> Text:
    """Event line 27: Added Delivery to Schedule."""
    week, delivery = s.coming_delivery()
    s.customer.overrides[week] = "add"
    return Text(
        "schedule.add",
        f"Added Delivery to Schedule: week of {week}",
        f'{{"week_start":"{week}","delivery_date":"{delivery}"}}',
        f"delivery={delivery}; ",
    )


def shared_with_friends(s: Scene) -> Text:
    """Event line 28: Shared with Friends."""
    count = 1 + s.draw.below(5)
    data = f'{{"count":{count},"emails":["friend@friends.example"]}}'
    return Text("referral.share", f"Shared with Friends: {count} emails", data, f"count={count}; ")


def schedule_delivery_skipped(s: Scene) -> Text:
    """Event line 29: Skipped Delivery on Schedule."""
    week, delivery = s.coming_delivery()
    s.customer.overrides[week] = "skip"
    return Text(
        "schedule.skip",
        f"Skipped Delivery on Schedule: week of {week}",
        f'{{"week_start":"{week}","delivery_date":"{delivery}"}}',
        f"delivery={delivery}; ",
    )


def address_updated(s: Scene) -> Text:
    """Event line 30: Updated Address."""
    a, before = s.customer, s.customer.zip
    a.zip = f"{60000 + s.draw.below(900):05d}"
    return Text(
        "customer.address",
        "Updated Address",
        f'{{"old":{{"zip":"{before}"}},"new":{{"street":"{a.street}","zip":"{a.zip}"}}}}',
        f"zip={a.zip}; ",
    )


def password_reset(s: Scene) -> Text:
    """Event line 31: Reset Password."""
    return Text("password.reset", "Reset Password", f'{{"ip":"{s.ip}"}}')


def order_cancelled(s: Scene) -> Text:
    """Event line 32: Cancelled Order."""
    o = s.order
    return Text(
        "order.cancel",
        f"Cancelled Order #{o.id}",
        f'{{"order_id":{o.id},"week_start":"{o.week}","total_cents":{o.total_cents},"refunded":false}}',
        f"order={o.id}; total={money(o.total_cents)}; ",
    )


def birthday_added(s: Scene) -> Text:
    """Event line 33: Added Birthday."""
    year = (
        1904
        if s.draw.chance(UNKNOWN_YEAR_SHARE)
        else s.draw.pick((1940, 1956, 1972, 1984, 1992, 2000, FUTURE))
    )
    leaps = year % 4 == 0 and s.draw.chance(0.1)
    day = "02-29" if leaps else f"{1 + s.draw.below(12):02d}-{1 + s.draw.below(28):02d}"
    s.customer.birthday = f"{year}-{day}"
    data = f'{{"name":"Ann","date":"{year}-{day}","primary":true}}'
    return Text("birthday.add", "Added Birthday", data, f"date={day}; ")


def schedule_changed(s: Scene) -> Text:
    """Event line 34: Changed Schedule."""
    before = s.customer.frequency or 1
    after = s.draw.other(tuple(FREQUENCIES), FREQUENCY_CHANGES, than=before)
    if not s.customer.hot:
        s.customer.frequency = after
    _, following = s.coming_delivery()
    return Text(
        "schedule.frequency",
        f"Changed Schedule: {FREQUENCIES[before]} -> {FREQUENCIES[after]}",
        f'{{"from_weeks":{before},"to_weeks":{after},"next_delivery":"{following}"}}',
        f"from={before}; to={after}; next={following}; ",
    )


def customer_cancelled_for_them(s: Scene) -> Text:
    """Event line 35: Customer cancelled, by staff or automatically."""
    stop = s.calendar.date(0, 5)
    if s.draw.chance(AUTO_CANCEL_SHARE):
        data = f'{{"reason":"card expired","by":"auto","stop_date":"{stop}"}}'
        message = "Customer cancelled automatically: card expired"
        pairs = f"reason=card expired; stop={stop}; "
        return Text("customer.cancel.auto", message, data, pairs, actor="system")
    reason = s.customer.cancel_reason or words.CANCEL_REASONS[0]
    data = f'{{"reason":"{reason}","by":"admin","stop_date":"{stop}"}}'
    message = f"Customer cancelled by {s.draw.pick(words.STAFF)}: {reason}"
    return Text("admin.customer.cancel", message, data, f"reason={reason}; stop={stop}; ", actor="admin")


def recurring_removed(s: Scene) -> Text:
    """Event line 36: Removed recurring product."""
    product = s.draw.pick(words.PANTRY)
    s.customer.recurring.pop(product.id, None)
    return Text(
        "recurring.remove",
        f"Removed recurring product setting: {product.name}",
        f'{{"prod_class_id":{product.id},"name":"{product.name}"}}',
        f"item={product.name}; ",
    )


def recurring_updated(s: Scene) -> Text:
    """Event line 37: Updated recurring product."""
    return _recurring(s, "recurring.update", "Updated")


def recurring_added(s: Scene) -> Text:
    """Event line 38: Added recurring product setting."""
    return _recurring(s, "recurring.add", "Added")


def _recurring(s: Scene, action: str, verb: str) -> Text:
    product, qty, often = s.draw.pick(words.PANTRY), 1 + s.draw.below(3), 1 + s.draw.below(4)
    s.customer.recurring[product.id] = (qty, often)
    return Text(
        action,
        f"{verb} recurring product setting: {product.name} x{qty} every {often} orders",
        f'{{"prod_class_id":{product.id},"name":"{product.name}","qty":{qty},"how_often":{often}}}',
        f"item={product.name}; qty={qty}; every={often}; ",
    )


def box_subscription_changed(s: Scene) -> Text:
    """Event line 39: Changed Box Subscription."""
    before = s.customer.box or words.BOXES[0]
    after = s.draw.other(words.BOXES, BOX_CHANGES, than=before)
    s.customer.box = after
    return Text(
        "subscription.box",
        f"Changed Box Subscription: {before.code.title()} -> {after.code.title()}",
        f'{{"from":"{before.code}","to":"{after.code}"}}',
        f"from={before.code}; to={after.code}; ",
    )


def gift_box_purchased(s: Scene) -> Text:
    """Event line 40: Gift Box Purchase."""
    boxes = 1 + s.draw.below(3)
    return Text(
        "giftbox.purchase",
        f"Gift Box Purchase: {boxes} boxes, ${money(boxes * 3500)}",
        f'{{"gift_order_id":{900 + s.draw.below(9000)},"boxes":{boxes},"total_cents":{boxes * 3500},'
        f'"recipients":[{{"name":"Pat","email":"pat@friends.example"}}]}}',
        f"boxes={boxes}; total={money(boxes * 3500)}; ",
        actor=_visitor_or_usual(s),
    )


def order_completed(s: Scene) -> Text:
    """Event line 41: Order Completed."""
    o, total = s.order, money(s.order.total_cents)
    return Text(
        "order.paid",
        f"Order Completed: #{o.id} ${total}",
        f'{{"order_id":{o.id},"total_cents":{o.total_cents},"currency":"{s.currency}","items":{o.visible_items},'
        f'"gateway":"stripe"}}',
        f"order={o.id}; total={total}; ",
    )


def schedule_reset(s: Scene) -> Text:
    """Event line 42: Reset Schedule."""
    overrides = s.customer.overrides
    adds = sum(kind == "add" for kind in overrides.values())
    skips = len(overrides) - adds
    overrides.clear()
    return Text(
        "schedule.reset",
        f"Reset Schedule: {skips} skips, {adds} add removed",
        f'{{"skips_removed":{skips},"adds_removed":{adds}}}',
        f"skips={skips}; adds={adds}; ",
    )


# One writer for each event line, in the vendor's order.
WRITERS: tuple[Writer, ...] = (
    delivery_reminder_sent,
    new_signup,
    magic_link_expired,
    login,
    login_cookie,
    login_magic_link,
    logout,
    sub_made,
    sub_undone,
    addon_added,
    item_deleted,
    promo_signup,
    order_created_welcome,
    order_box_changed,
    order_skipped,
    customer_cancelled,
    skip_considered,
    gift_certificate_used,
    discount_code_used,
    contact_form,
    gift_purchaser_activated,
    promo_activated,
    payment_info_updated,
    email_resubscribed,
    email_unsubscribed,
    shipping_notes_updated,
    schedule_delivery_added,
    shared_with_friends,
    schedule_delivery_skipped,
    address_updated,
    password_reset,
    order_cancelled,
    birthday_added,
    schedule_changed,
    customer_cancelled_for_them,
    recurring_removed,
    recurring_updated,
    recurring_added,
    box_subscription_changed,
    gift_box_purchased,
    order_completed,
    schedule_reset,
)
