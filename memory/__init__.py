"""The embedded memory service, on the service's own Postgres."""
