"""Retries of transactions that Postgres rolled back."""

import pytest
from psycopg.errors import DeadlockDetected, UniqueViolation

from memory.database import MAX_ATTEMPTS, retry_on_conflict


class Obstructed:
    """Fails a number of times, then succeeds."""

    def __init__(self, times: int, error: type[Exception] = DeadlockDetected) -> None:
        self.left = times
        self.tried = 0
        self._error = error

    async def __call__(self) -> str:
        self.tried += 1
        if self.left:
            self.left -= 1
            raise self._error
        return "done"


async def test_a_rolled_back_transaction_is_retried() -> None:
    attempt = Obstructed(MAX_ATTEMPTS - 1)
    assert await retry_on_conflict(attempt) == "done"
    assert attempt.tried == MAX_ATTEMPTS


async def test_retries_are_limited() -> None:
    attempt = Obstructed(MAX_ATTEMPTS)
    with pytest.raises(DeadlockDetected):
        await retry_on_conflict(attempt)
    assert attempt.tried == MAX_ATTEMPTS


async def test_other_errors_are_not_retried() -> None:
    attempt = Obstructed(1, UniqueViolation)
    with pytest.raises(UniqueViolation):
        await retry_on_conflict(attempt)
    assert attempt.tried == 1
