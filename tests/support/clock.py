"""The time that prompts speak of in tests."""

from datetime import UTC, datetime

# Monday evening in UTC, Tuesday morning in Tokyo.
MOMENT = datetime(2026, 11, 30, 20, 15, tzinfo=UTC)
