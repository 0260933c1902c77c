"""The call that reads the user to whom the key belongs."""

from __future__ import annotations

from kiva_stream.sandbox.activecampaign.account import Account
from kiva_stream.sandbox.activecampaign.calls import Call, Handlers
from kiva_stream.sandbox.activecampaign.responses import Response, json_response


def get_own_user(account: Account, _call: Call) -> Response:
    """Show the user of the key ("Retrieve logged-in user")."""
    name = account.settings.name
    return json_response({"user": {"id": "1", "username": name, "email": f"{name}@sandbox.example"}})


HANDLERS: Handlers = {"getOwnUser": get_own_user}
