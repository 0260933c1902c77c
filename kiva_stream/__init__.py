"""kiva_stream carries a food-box shop's system log from PostgreSQL into ActiveCampaign."""

__version__ = "0.1.0"
