"""The names of a food-box shop's customers, staff and products, and the words of its texts."""

from __future__ import annotations

from typing import NamedTuple


class Product(NamedTuple):
    """A product that a box may hold."""

    id: int  # within a site
    name: str
    price_cents: int
    classification: str


class Box(NamedTuple):
    """A box to subscribe to."""

    id: int  # within a site
    code: str
    name: str
    price_cents: int
    menu_items: tuple[int, ...]  # how many items its menu may have, each with the same probability


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


BOXES = (
    Box(1, "small", "Small Box", 2400, (6,)),
    Box(2, "medium", "Medium Box", 3100, (7, 7, 7, 8, 8)),
    Box(3, "large", "Large Box", 4600, (8, 9, 9, 9, 12)),
    Box(4, "fruit", "Fruit Box", 2700, (6, 6, 6, 6, 7)),
)
BOX_SHARES = (34, 41, 18, 7)

_PRODUCE = _listed(
    "Apples,Apricots,Arugula,Asparagus,Avocados,Bananas,Basil,Beets,Blueberries,Bok Choy,Broccoli,"
    "Brussels Sprouts,Butternut Squash,Cabbage,Cantaloupe,Carrots,Cauliflower,Celery,Chard,Cherries,Cilantro,"
    "Collards,Corn,Cucumbers,Dill,Eggplant,Fennel,Garlic,Ginger,Grapefruit,Grapes,Green Beans,Kale,Kiwis,"
    "Leeks,Lemons,Lettuce,Limes,Mangos,Mint,Mushrooms,Nectarines,Onions,Oranges,Parsley,Peaches,Pears,Peas,"
    "Peppers,Plums,Potatoes,Pumpkin,Radishes,Rosemary,Spinach,Strawberries,Sweet Potatoes,Tomatoes,"
    "Turnips,Zucchini"
)
_PANTRY = _listed(
    "Sourdough,Rye Bread,Bagels,Granola,Eggs,Butter,Goat Cheese,Cheddar,Whole Milk,Oat Milk,Yoghurt,Honey,"
    "Maple Syrup,Peanut Butter,Coffee Beans,Green Tea,Apple Cider,Kombucha,Salsa,Hummus,Pasta,Brown Rice,"
    "Black Beans,Olive Oil,Sea Salt,Chocolate,Oat Cookies,Chicken Breast,Ground Beef,Salmon"
)
PRODUCE = tuple(
    Product(n, name, 150 + 25 * (n * 7 % 13), "produce") for n, name in enumerate(_PRODUCE, start=1)
)
PANTRY = tuple(
    Product(n, name, 350 + 50 * (n * 5 % 17), "pantry") for n, name in enumerate(_PANTRY, start=101)
)
EXTRA_SHARE = Product(200, "Farm Share Extra", 1500, "share")
PRODUCTS = (*PRODUCE, *PANTRY, EXTRA_SHARE)

FIRST_NAMES = _listed(
    "Ann,Ben,Carla,Dan,Elena,Frank,Grace,Hugo,Ivy,Jack,Karen,Liam,Maria,Noah,Olivia,Paul,Quinn,Rosa,Sam,Tara,"
    "Uma,Victor,Wendy,Xavier,Yara,Zoe,Mary Ann,Jean-Luc,Anna,Bill,Chris,Dora,Erik,Fay,Gil,Hana,June,Kim,Leo"
)
LAST_NAMES = _listed(
    "Lee,Smith,Garcia,Miller,Khan,Novak,Olsen,Murphy,Nguyen,O'Brien,van der Berg,de Wit,Johnson,Brown,Davis,"
    "Lopez,Wilson,Moore,Clark,Lewis,Young,Hall,Allen,King,Wright,Scott,Green,Baker,Adams,Nelson,Carter,"
    "Roberts,Turner,Phillips,Campbell,Parker,Evans,Edwards,Collins,St. John,Smith-Jones,del Rio,Dube,Botha"
)
# Names as a shop's tables have them after years of forms, imports and pastes.
ODD_NAMES = (
    ("JosÃ©", "NuÃ±ez"),
    ("<b>Ann</b>", "Lee"),
    ("Ann \N{CARROT}", "Green"),
    ("Zo\x07e", "King"),
    ("Bj\N{LATIN SMALL LETTER O WITH DIAERESIS}rn", "\N{LATIN CAPITAL LETTER A WITH RING ABOVE}berg"),
    ("Kim\\u0000", "Park"),
    ("Tom & Jo", "<i>Reed</i>"),
)
BUSINESSES = ("Corner Cafe", "Hill Street Office", "Riverside Coop", "Sunny Nursery", "North Gym")
STREETS = ("Main St", "Oak Ave", "Hill Rd", "Lake Dr", "Park Ln", "Mill St", "Church St", "River Rd")
CITIES = ("Springfield", "Riverton", "Lakeside", "Fairview", "Georgetown")
MAIL_DOMAINS = ("example.com", "example.net", "example.org", "mail.example.com")

STAFF = ("wayne", "nina", "robert", "joy")
SKIP_REASONS = ("out of town", "too much food", "holiday", "budget", "trying another box")
CANCEL_REASONS = ("too expensive", "moving away", "too much food", "bad produce", "not cooking", "travel")
PROMO_CODES = ("FREEBOX", "HALFOFF", "TRYUS", "SPRING")
DISCOUNT_CODES = ("FALL10", "WELCOME5", "FRIEND15", "SORRY10", "BLACKFRIDAY", "YUM20")
TOPICS = ("delivery", "billing", "produce quality", "schedule", "recipes", "other")
TEMPLATES = ("weekly_menu", "delivery_reminder", "receipt", "welcome")
GATEWAYS = ("stripe", "authorize.net", "braintree")
SOURCES = ("web", "phone", "referral", "market stall")
TAGS = ("VIP", "office", "north route", "no peanuts", "coop", "seasonal")
