"""Postgres: the embedded server, the one pool, migrations and the checkpointer."""
