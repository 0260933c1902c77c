"""What ActiveCampaign refuses for the account's sake waits; all else goes on, and no dead letter is made."""

from __future__ import annotations

from pathlib import Path

from kiva_stream.model.positions import DAY1
from tests.acceptance.live_shop import LONG_PAID, LiveShop, email, following, live_shop
from tests.acceptance.stages import until
from tests.support.postgres import connected

LIMIT = 12
REFUSED = 4
QUICK = {"KIVA_STREAM__ACTIVECAMPAIGN__RETRY_REFUSED_S": "0.5"}


async def write_all(shop: LiveShop) -> None:
    async with connected(shop.dsn) as connection:
        for customer in shop.customers:
            await shop.write(connection, customer)


def incidents(shop: LiveShop) -> dict[str, str]:
    return {each["kind"]: each["why"] for each in shop.status()["troubles"]}


async def test_a_backfill_beyond_the_contact_limit_delivers_the_others_and_ends_with_exit_code_4(
    database: str, tmp_path: Path
) -> None:
    async with live_shop(database, tmp_path, 20) as shop:
        await write_all(shop)
        await shop.activecampaign.change(contact_limit=LIMIT)
        said = shop.run("backfill", "--since", "day1", "--yes", code=REFUSED)
        assert "You have reached your contact limit." in said
        status = shop.status()
        assert status["phase"] != "done"
        assert (status["equation"]["delivered"], status["equation"]["parked"]) == (LIMIT, 20 - LIMIT)
        assert status["equation"]["dead"] == {}
        assert list(incidents(shop)) == ["new_contacts"]
        assert (await shop.activecampaign.state())["requests"]["syncContact"] == 1

        known = await shop.contacts()
        left = min(each for each in shop.customers if email(each) not in known)
        said = shop.run("sync", "--customer", str(left), code=REFUSED)
        assert "You have reached your contact limit." in said

        await shop.activecampaign.change(contact_limit=0)
        shop.run("backfill")
        assert shop.status()["phase"] == "done"
        assert shop.status()["equation"]["delivered"] == 20
        assert incidents(shop) == {}


async def test_at_the_contact_limit_known_contacts_are_followed_and_new_ones_come_when_it_is_raised(
    database: str, tmp_path: Path
) -> None:
    async with live_shop(database, tmp_path, 4) as shop, connected(database) as shopkeeper:
        await shopkeeper.execute("UPDATE kiva.customers SET email = '' WHERE id > 2")
        await shop.backfill(DAY1)
        await shop.activecampaign.change(contact_limit=2)
        async with following(shop, "follow", **QUICK):
            for customer in (3, 4):
                await shopkeeper.execute(
                    "UPDATE kiva.customers SET email = $2, updated_at = clock_timestamp() WHERE id = $1",
                    customer,
                    email(customer),
                )
                await shop.write(shopkeeper, customer)

            async def are_new_contacts_paused() -> bool:
                return "new_contacts" in incidents(shop)

            await until(are_new_contacts_paused)
            await shop.write(shopkeeper, 1)
            await shop.write(shopkeeper, 3)
            await shopkeeper.execute(
                "UPDATE kiva.customers SET phone = '555 0100', updated_at = clock_timestamp() WHERE id = 2"
            )

            async def have_known_contacts_gone_on() -> bool:
                phone = (await shop.contacts())[email(2)]["phone"]
                return bool(phone) and list(await shop.received()) == [email(1)]

            await until(have_known_contacts_gone_on)
            await shop.activecampaign.change(contact_limit=0)

            async def have_all_arrived() -> bool:
                return {who: len(ids) for who, ids in (await shop.received()).items()} == {
                    email(1): 1,
                    email(3): 2,
                    email(4): 1,
                }

            await until(have_all_arrived)
            assert all(ids == sorted(ids) for ids in (await shop.received()).values())
        status = shop.status()
        assert status["equation"]["dead"] == {}
        assert incidents(shop) == {}


async def test_while_orders_are_refused_a_backfill_brings_all_else_and_follow_goes_on_when_they_are_taken(
    database: str, tmp_path: Path
) -> None:
    async with live_shop(database, tmp_path, 6) as shop:
        await write_all(shop)
        for number in range(1, 4):
            await shop.order(number, number, **LONG_PAID)
        await shop.activecampaign.change(ecommerce_enabled=False)
        said = shop.run("backfill", "--since", "day1", "--yes", code=REFUSED)
        assert "Ecommerce is not enabled" in said
        state = await shop.activecampaign.state()
        assert (state["contacts"], state["orders"]) == (6, 0)
        assert sorted(await shop.received()) == [email(number) for number in (4, 5, 6)]
        assert shop.status()["equation"]["dead"] == {}
        assert list(incidents(shop)) == ["orders"]

        async with following(shop, "follow", **QUICK):
            await shop.activecampaign.change(ecommerce_enabled=True)

            async def have_all_arrived() -> bool:
                state = await shop.activecampaign.state()
                return bool((state["orders"], state["events"]) == (3, 6))

            await until(have_all_arrived)
