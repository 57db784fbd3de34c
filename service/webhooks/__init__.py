"""Webhooks: the endpoints of tenants, and the delivery of events to them."""
