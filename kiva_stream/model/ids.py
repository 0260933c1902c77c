"""Identifiers, each with a type of its own, so that none can be passed as another."""

from __future__ import annotations

from typing import NewType

CustomerId = NewType("CustomerId", int)
ContactId = NewType("ContactId", int)  # of a contact in the state schema; not ActiveCampaign's id
AcId = NewType("AcId", int)  # ActiveCampaign's id of a contact
OrderId = NewType("OrderId", int)
LOWEST_ID = -(2**63)  # below every id of the shop, some of which are 0 or less
Email = NewType("Email", str)  # normalised, see model/addresses.py
