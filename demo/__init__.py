"""Clients to watch the service with."""
