"""A clock that stands still, for what prompts say of the day."""

from datetime import UTC, datetime

import pytest

# Monday evening in UTC, Tuesday morning in Tokyo.
MOMENT = datetime(2026, 11, 30, 20, 15, tzinfo=UTC)


def stop_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be :data:`MOMENT` in every prompt."""
    monkeypatch.setattr("nodes.shared.prompts.get_current_time", lambda: MOMENT)
