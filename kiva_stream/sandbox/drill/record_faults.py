"""Faults about one contact, one order or one setting, and the runs before and after they are mended."""

from __future__ import annotations

from kiva_stream.sandbox.activecampaign.faults import FaultKind
from kiva_stream.sandbox.drill.run import REFUSED, Run
from kiva_stream.sandbox.drill.site import DrillError
from kiva_stream.sandbox.drill.truths import known_contacts, missing_of_others

WRONG_NAME = "Zacharias"
BAD_REQUEST = '{"success":0,"message":"Bad Request"}'
LOG_IN = "https://www.example/login"
CONTACT_WRITES = ("/import/bulk_import", "/contact/sync")


async def poison(run: Run) -> None:
    """Let every request fail that carries one contact, or an order of another, until a backfill has ended."""
    contact, buyer = known_contacts(run.site.history.truth, 2)
    poisonous = [(path, f'"{contact.email}"') for path in CONTACT_WRITES]
    poisonous.append(("/ecom/graphql", f'"storeOrderId": ?"{buyer.order}"'))
    await run.site.activecampaign.fail(
        *({"path": path, "kind": FaultKind.ERROR_BEFORE, "matching": body} for path, body in poisonous)
    )
    run.note_strike()
    await run.complete()
    await _note_kept(run, contact.email, buyer.email)
    _note_held(run, 2)
    await run.site.activecampaign.fail()
    run.note_end()
    await run.complete()


async def refuse_contact(run: Run) -> None:
    """Let ActiveCampaign refuse a contact until its data are corrected at the shop."""
    [contact] = known_contacts(run.site.history.truth, 1)
    right = await run.site.fetch_value("SELECT last_name FROM kiva.customers WHERE id = $1", contact.customer)
    renamed = "UPDATE kiva.customers SET last_name = $2 WHERE id = $1 RETURNING id"
    await run.site.fetch_value(renamed, contact.customer, WRONG_NAME)
    await run.site.activecampaign.change(invalid_emails=[contact.email])
    run.note_strike()
    await run.complete()
    await _note_kept(run, contact.email)
    await run.site.activecampaign.change(invalid_emails=[])
    await run.site.fetch_value(renamed, contact.customer, right)
    run.note_end()
    await run.complete()


async def refuse_imports(run: Run) -> None:
    """Let ActiveCampaign refuse imports with one address, without naming it, until a backfill has ended."""
    [contact] = known_contacts(run.site.history.truth, 1)
    refusal = {"kind": FaultKind.ANSWER_BEFORE, "status": 400, "text": BAD_REQUEST}
    matching = {"path": "/import/bulk_import", "matching": f'"{contact.email}"'}
    await run.site.activecampaign.fail({**matching, **refusal})
    run.note_strike()
    await run.complete()
    await _note_kept(run)
    await run.site.activecampaign.fail()
    run.note_end()
    await run.complete()


async def refuse_value(run: Run) -> None:
    """Let ActiveCampaign refuse the phone of one contact during a backfill; then sync that customer."""
    [contact] = known_contacts(run.site.history.truth, 1)
    await run.site.activecampaign.change(invalid_values=[contact.phone])
    run.note_strike()
    await run.complete()
    await _note_kept(run)
    await run.site.activecampaign.change(invalid_values=[])
    await run.site.command_output("sync", "--customer", str(contact.customer))
    run.note_end()


async def mistype_address(run: Run) -> None:
    """Let another server answer at a mistyped `api_url`, which the command has to name."""
    right = run.site.activecampaign.api_url
    wrong = {"KIVA_STREAM__ACTIVECAMPAIGN__API_URL": right.replace("127.0.0.1", "localhost")}
    redirect = {"path": "*", "kind": FaultKind.ANSWER_BEFORE, "status": 301, "headers": {"Location": LOG_IN}}
    await run.site.activecampaign.fail(redirect)
    run.note_strike()
    code, said = await run.site.command_error("backfill", "--since", "day1", "--yes", **wrong)
    if code != REFUSED or "api_url is wrong" not in said or LOG_IN not in said:
        raise DrillError(f"with a mistyped api_url, backfill ended with exit code {code}: {said}")
    await run.site.activecampaign.fail()
    run.note_end()
    await run.complete()


async def _note_kept(run: Run, *emails: str) -> None:
    """Note what has not arrived of others than these addresses."""
    run.note_kept(await missing_of_others(run.site.history.truth, run.site.activecampaign, emails))


def _note_held(run: Run, count: int) -> None:
    """Note which records were held beside so many poisonous ones. Raises DrillError if these were not."""
    held = {(row["kind"], row["id"]) for row in run.site.logged("a record is held")}
    if len(held) < count:
        raise DrillError(f"of {count} poisonous records {len(held)} were held")
    run.note_kept(len(held) - count)
