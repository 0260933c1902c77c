"""Identifiers: each a type of its own, so that none is passed for another."""

from __future__ import annotations

from typing import NewType

CustomerId = NewType("CustomerId", int)
ContactId = NewType("ContactId", int)  # the id of a contact's link in the state schema, not ActiveCampaign's
AcId = NewType("AcId", int)  # ActiveCampaign's id of a contact
OrderId = NewType("OrderId", int)
Email = NewType("Email", str)  # normalised, see kiva_stream.addresses
