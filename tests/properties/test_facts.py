"""For any statements about a contact: one value at a time, past beliefs stay, and nothing is lost."""

from datetime import datetime, timedelta
from itertools import pairwise
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.memory import Fact, NewFact, Scope
from core.postgres import Pool
from memory.embedded import EmbeddedMemory
from tests.support.facts import JANUARY, fact, fact_memory
from tests.support.profiles import examples

DAYS = st.integers(-20, 20)


@st.composite
def tellings(draw: st.DrawFn) -> NewFact:
    kind = draw(st.sampled_from(["state", "state", "correct", "end"]))
    return fact(
        draw(st.sampled_from(["city", "uses"])),
        draw(st.sampled_from(["Porto", "Lisbon", "Faro"])),
        f"m{draw(st.integers(1, 9))}",
        valid_from=JANUARY + timedelta(days=draw(DAYS)),
        correction=kind == "correct",
        ended=kind == "end",
        instead_of=draw(st.sampled_from(["", "Porto"])) if kind == "correct" else "",
    )


async def told(memory: EmbeddedMemory, scope: Scope, told: NewFact) -> datetime:
    """Return when a fact was recorded."""
    [change] = await memory.upsert_facts(scope, [told])
    history = await memory.fact_history(scope)
    return max(each.superseded_at or each.recorded_at for each in (*history, change.fact))


def assert_one_value_at_a_time(history: list[Fact]) -> None:
    """Return the believed facts of the single-valued predicate."""
    believed = [
        each
        for each in history
        if each.predicate == "city" and each.superseded_at is None and each.valid_from != each.valid_to
    ]
    for earlier, later in pairwise(sorted(believed, key=lambda each: each.valid_from)):
        assert earlier.valid_to is not None
        assert earlier.valid_to <= later.valid_from


@settings(
    max_examples=examples(12), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(tellings(), min_size=2, max_size=8))
async def test_one_value_holds_at_a_time_and_the_past_does_not_change(
    pool: Pool, tellings: list[NewFact]
) -> None:
    scope = Scope("acme", uuid4().hex)
    async with fact_memory(pool) as memory:
        moments: dict[datetime, list[list[Fact]]] = {}
        known: set[tuple[str, str, str]] = set()
        for telling in tellings:
            moment = await told(memory, scope, telling)
            history = await memory.fact_history(scope)
            assert_one_value_at_a_time(history)
            written = {(each.id, each.object, each.source_message_id) for each in history}
            assert known <= written
            known = written
            moments[moment] = await list_beliefs(memory, scope, moment)
        for moment, answers in moments.items():
            assert await list_beliefs(memory, scope, moment) == answers


async def list_beliefs(memory: EmbeddedMemory, scope: Scope, moment: datetime) -> list[list[Fact]]:
    """Return what is believed at a moment within three days."""
    return [
        await memory.list_facts(scope, valid_at=JANUARY + timedelta(days=day), believed_at=moment)
        for day in (-15, 0, 15)
    ]
