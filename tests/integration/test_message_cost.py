"""What one message costs the event loop, so that it does not grow unnoticed."""

import time

from benchmarks.message_counters import calibrate
from benchmarks.messages import MESSAGES
from tests.support.service import CONTACT, RunningService, running_service

# CPU of the event loop for one message, of that for a round of the calibration loop, measured on 30 November
# 2026 by this test. Lower it when a message has become cheaper; see benchmarks/README.md.
STORED_ROUNDS = 400
# Other work on the machine makes the two vary by a third at most.
MOST_GROWTH = 1.6
WARM_UP = len(MESSAGES) // 2
MEASURED = len(MESSAGES)
CALIBRATION_ROUNDS = 40


async def test_a_message_costs_the_event_loop_no_more_than_it_did(database_url: str) -> None:
    async with running_service(database_url) as running:
        await running.service.warming
        for number in range(WARM_UP):
            await send(running, number)
        spent = calibration = 0.0
        for number in range(WARM_UP, WARM_UP + MEASURED):
            # In turn, so that a busy machine slows both.
            calibration += calibrate(CALIBRATION_ROUNDS)
            started = time.thread_time()
            await send(running, number)
            spent += time.thread_time() - started
    rounds = spent / (calibration / CALIBRATION_ROUNDS)
    assert rounds < MOST_GROWTH * STORED_ROUNDS, f"a message costs as much as {rounds:.0f} rounds"


async def send(running: RunningService, number: int) -> None:
    message = MESSAGES[number % len(MESSAGES)].format(n=10_000 + number)
    body = {"message": message, "contact_id": CONTACT}
    (await running.http.post("/v1/messages", json=body)).raise_for_status()
