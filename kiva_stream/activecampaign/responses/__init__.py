"""What each answer of ActiveCampaign means, one module an API area; all pure.

A `parse_…` function takes a `Response` and returns what the request asked for, or raises the `DeliveryError`
that says what to do. It decides by the body, never by the status alone: ActiveCampaign answers some refusals
with 200 and some throttling with 400. Requests are made in the modules beside this package, and repeated by
`client`.
"""
