"""`probe`: what ActiveCampaign does not document, asked of the user's own account."""
