"""The circuit breaker refuses calls to an unavailable service for a while, then tries one."""

import pytest

from core.circuit import CircuitBreaker
from core.errors import MemoryRefused, MemoryUnavailable, ServiceError

AWAY = MemoryUnavailable("away", details={"grpc_status": "UNAVAILABLE"})
FAILED = MemoryUnavailable("failed", details={"grpc_status": "INTERNAL"})


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def circuit(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(
        "service",
        10,
        is_failure=lambda error: (
            isinstance(error, MemoryUnavailable) and error.details.get("grpc_status") == "UNAVAILABLE"
        ),
        refuse=lambda seconds: MemoryUnavailable("not called for the moment", retry_after=seconds),
        max_failures=2,
        clock=clock,
    )


def came_to(circuit: CircuitBreaker, error: ServiceError | None = None) -> str:
    """Return the outcome of a call; ``refused`` if the circuit is open."""
    entered = False
    try:
        with circuit.call() as trial:
            entered = True
            if error:
                raise error
    except ServiceError:
        return "raised" if entered else "refused"
    return "trial" if trial else "passed"


def test_one_failure_changes_nothing() -> None:
    line = circuit(Clock())
    assert [came_to(line, error) for error in (AWAY, None, AWAY, None)] == [
        "raised",
        "passed",
        "raised",
        "passed",
    ]


def test_after_two_failures_in_a_row_calls_are_refused_for_a_while() -> None:
    clock = Clock()
    line = circuit(clock)
    assert [came_to(line, AWAY) for _ in range(3)] == ["raised", "raised", "refused"]
    clock.now += 9.9
    assert came_to(line) == "refused"
    clock.now += 0.1
    assert [came_to(line) for _ in range(2)] == ["trial", "passed"]


def test_a_refusal_says_when_to_try_again() -> None:
    clock = Clock()
    line = circuit(clock)
    came_to(line, AWAY)
    came_to(line, AWAY)
    clock.now += 4
    with pytest.raises(MemoryUnavailable) as caught, line.call():
        pass
    assert caught.value.retry_after == 6


def test_a_trial_that_fails_begins_another_rest() -> None:
    clock = Clock()
    line = circuit(clock)
    came_to(line, AWAY)
    came_to(line, AWAY)
    clock.now += 10
    assert [came_to(line, AWAY), came_to(line)] == ["raised", "refused"]
    clock.now += 10
    assert came_to(line) == "trial"


def test_only_one_call_is_the_trial() -> None:
    clock = Clock()
    line = circuit(clock)
    came_to(line, AWAY)
    came_to(line, AWAY)
    clock.now += 10
    with line.call() as trial:
        assert trial
        assert came_to(line) == "refused"
    assert came_to(line) == "passed"


def test_a_cancelled_trial_decides_nothing() -> None:
    clock = Clock()
    line = circuit(clock)
    came_to(line, AWAY)
    came_to(line, AWAY)
    clock.now += 10
    with pytest.raises(KeyboardInterrupt), line.call():
        raise KeyboardInterrupt
    assert came_to(line) == "trial"


@pytest.mark.parametrize("error", [FAILED, MemoryRefused("no")])
def test_an_error_of_the_service_itself_closes_the_circuit(error: ServiceError) -> None:
    line = circuit(Clock())
    assert [came_to(line, each) for each in (AWAY, error, AWAY, None)] == [
        "raised",
        "raised",
        "raised",
        "passed",
    ]


def test_the_state_of_the_circuit_says_whether_calls_are_refused() -> None:
    clock = Clock()
    line = circuit(clock)
    states = [line.state]
    for _ in range(2):
        came_to(line, AWAY)
        states.append(line.state)
    clock.now += 10
    states.append(line.state)
    came_to(line)
    assert [*states, line.state] == ["closed", "closed", "open", "half_open", "closed"]
