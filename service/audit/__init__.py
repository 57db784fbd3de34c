"""The audit trail, idempotent effects and idempotent requests."""
