"""Rows of the shop's tables in PostgreSQL's COPY text format."""

from __future__ import annotations

from collections.abc import Iterator

from kiva_stream.sandbox.generator import words
from kiva_stream.sandbox.generator.clock import SECOND, stamp
from kiva_stream.sandbox.generator.commits import Entry
from kiva_stream.sandbox.generator.orders import DELIVERY_CENTS
from kiva_stream.sandbox.generator.population import ERASED, CustomerAccount
from kiva_stream.sandbox.generator.rows import Row
from kiva_stream.sandbox.generator.shop import Shop
from kiva_stream.sandbox.generator.stored_columns import box_is_gone, next_delivery
from kiva_stream.sandbox.generator.stored_orders import StoredOrder

NULL = r"\N"
NO_BOX = 9  # a box type without a row

COLUMNS = {
    "sites": "id name timezone currency admin_base_url structured_log_since launched_on",
    "delivery_weeks": "site_id week_start opened_at menu_emailed_at cutoff_at closed_at",
    "box_types": "id site_id code name price_cents active",
    "products": "id site_id classification name sku price_cents wholesale_cents lifespan",
    "customers": (
        "id site_id email first_name last_name business_name phone"
        " street city state zip account_type status"
        " box_type_id frequency_weeks schedule_anchor delivery_dow"
        " start_date next_delivery cancelled_at cancel_reason birthday email_opt_in email_blacklisted is_test"
        " created_at updated_at deleted_at"
    ),
    "schedule_overrides": "customer_id week_start kind created_at",
    "recurring_products": "customer_id product_id qty how_often",
    "orders": (
        "id site_id customer_id week_start delivery_date status payment_status kind box_type_id"
        " subtotal_cents delivery_cents discount_cents credit_cents total_cents discount_code email_at_order"
        " created_at closed_at paid_at updated_at"
    ),
    "order_items": "id order_id product_id name category qty unit_price_cents replaces_item_id removed_at",
    "customer_tags": "customer_id tag",
    "system_log": (
        "id site_id occurred_at inserted_at severity category action customer_id actor_type"
        " admin_user message related_type related_id stack_trace data"
    ),
}


def escaped(text: str) -> str:
    """Escape a text as COPY requires."""
    if "\\" not in text and text.isprintable():
        return text
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")


def row_text(*values: object) -> str:
    """Return the text of a row of any table: None is NULL, a bool is t or f."""
    return "\t".join(_field(value) for value in values) + "\n"


def _field(value: object) -> str:
    if value is None:
        return NULL
    if isinstance(value, bool):
        return "t" if value else "f"
    return escaped(str(value))


def log_rows(entries: list[Entry]) -> str:
    """Return the rows of `system_log` of one transaction."""
    return "".join([_log_row(log_id, row) for log_id, row in entries])


def _log_row(log_id: int, row: Row) -> str:
    """Return one row. Most of the generator's time is spent here, hence no loop over columns."""
    related = f"order\t{row.order_id}" if row.order_id else "\\N\t\\N"
    return (
        f"{log_id}\t{row.site_id}\t{stamp(row.occurred_ms)}\t{stamp(row.inserted_ms)}\t{row.severity}"
        f"\t{row.category}\t{row.action or NULL}\t{row.customer_id or NULL}\t{row.actor or NULL}"
        f"\t{row.staff or NULL}\t{escaped(row.message)}\t{related}"
        f"\t{NULL if row.stack is None else escaped(row.stack)}"
        f"\t{NULL if row.data is None else escaped(row.data)}\n"
    )


def site_row(shop: Shop, structured_since_ms: int) -> str:
    """Return the row of `sites`."""
    site = shop.site
    url = f"https://{site.name.lower().replace(' ', '-')}.example/admin"
    since = stamp(structured_since_ms)
    return row_text(site.id, site.name, site.timezone, site.currency, url, since, shop.launched_on)


def week_row(shop: Shop, week: int) -> str:
    """Return the row of `delivery_weeks` of an entry week."""
    calendar = shop.calendar(week)
    opened, mailed, cut_off = calendar.at(0, 41_400), calendar.at(0, 43_200), calendar.at(2, 86_340)
    closed = cut_off + 60 * SECOND
    times = (stamp(ms) for ms in (opened, mailed, cut_off, closed))
    return row_text(shop.site.id, calendar.mondays[0], *times)


def box_rows(site_id: int) -> Iterator[str]:
    """Yield the rows of `box_types` of a site; the fruit box is no longer sold."""
    for box in words.BOXES:
        active = box is not words.BOXES[-1]
        yield row_text(site_id * 10 + box.id, site_id, box.code, box.name, box.price_cents, active)


def product_rows(site_id: int) -> Iterator[str]:
    """Yield the rows of `products` of a site."""
    for number, name, price, classification in words.PRODUCTS:
        product_id = site_id * 1000 + number
        span = "current_week" if classification == "produce" else "always"
        sku, wholesale = f"SKU{number:04d}", price * 6 // 10
        yield row_text(product_id, site_id, classification, name, sku, price, wholesale, span)


def customer_rows(shop: Shop) -> Iterator[str]:
    """Yield the rows of `customers` as they are in the end; erased customers have none."""
    for customer in shop.population.customers:
        if customer.anomaly != "erased":
            yield _customer_row(shop, customer)


def _customer_row(shop: Shop, a: CustomerAccount) -> str:
    site_id, box = shop.site.id, a.box
    return row_text(
        *(a.id, site_id, a.address.stored, a.first_name, a.last_name, a.business_name, a.phone),
        *(a.street, a.city, "IL", a.zip, a.account_type, a.status),
        _box_id(site_id, a),
        *(a.frequency, a.anchor, a.weekday if box else None, a.anchor, next_delivery(shop, a)),
        *(stamp(a.cancelled_ms) if a.cancelled_ms else None, a.cancel_reason, a.birthday),
        *(a.opt_in, a.blacklisted, a.anomaly == "test", stamp(a.created_ms), stamp(a.updated_ms)),
        stamp(a.updated_ms) if a.anomaly == "deleted" else None,
    )


def _box_id(site_id: int, customer: CustomerAccount) -> int | None:
    if customer.box is None:
        return None
    return site_id * 10 + (NO_BOX if box_is_gone(customer) else customer.box.id)


def override_rows(shop: Shop) -> Iterator[str]:
    """Yield the rows of `schedule_overrides`."""
    for customer in _present(shop):
        for week, kind in customer.overrides.items():
            yield row_text(customer.id, week, kind, stamp(customer.updated_ms))


def recurring_rows(shop: Shop) -> Iterator[str]:
    """Yield the rows of `recurring_products`."""
    for customer in _present(shop):
        for product_id, (qty, often) in customer.recurring.items():
            yield row_text(customer.id, shop.site.id * 1000 + product_id, qty, often)


def tag_rows(shop: Shop) -> Iterator[str]:
    """Yield the rows of `customer_tags`."""
    for customer in _present(shop):
        for tag in customer.tags:
            yield row_text(customer.id, tag)


def _present(shop: Shop) -> Iterator[CustomerAccount]:
    return (customer for customer in shop.population.customers if customer.anomaly not in ERASED)


def order_row(site_id: int, stored: StoredOrder) -> str:
    """Return the row of `orders`."""
    order, subtotal_cents, discount, credit, _ = stored
    kind = "normal" if order.total_cents else "promo"
    return (
        f"{order.id}\t{site_id}\t{order.customer_id}\t{order.week}\t{order.delivery}\t{order.status}"
        f"\t{order.payment_status}\t{kind}\t{site_id * 10 + order.box.id}\t{subtotal_cents}"
        f"\t{DELIVERY_CENTS}\t{discount}\t{credit}\t{order.total_cents}"
        f"\t{order.discount_code or NULL}\t{order.email or NULL}\t{stamp(order.created_ms)}"
        f"\t{_stamp(order.closed_ms)}\t{_stamp(order.paid_ms)}\t{stamp(order.updated_ms)}\n"
    )


def item_rows(stored: StoredOrder) -> str:
    """Return the rows of `order_items` of one order."""
    order = stored.order
    removed = stamp(order.created_ms + 1)
    return "".join(
        [
            f"{item.id}\t{order.id}\t{item.product_id}\t{item.name}\t{item.category}\t{item.qty}"
            f"\t{item.price_cents}\t{NULL if item.replaces is None else item.replaces}"
            f"\t{removed if item.removed else NULL}\n"
            for item in stored.items
        ]
    )


def _stamp(ms: int | None) -> str:
    return NULL if ms is None else stamp(ms)
