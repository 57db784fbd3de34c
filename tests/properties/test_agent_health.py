"""Properties of the agents' health, for events in any order."""

from hypothesis import given
from hypothesis import strategies as st

from nodes.coordinator.router import DEGRADED_FAILURES, ESCALATION_FAILURES, AgentHealth


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_only_failures_since_the_last_success_of_an_agent_count(events: list[tuple[str, bool]]) -> None:
    health = AgentHealth()
    for agent, answered in events:
        (health.record_success if answered else health.record_failure)(agent)
    for agent in "abc":
        since: list[bool] = []
        for name, answered in events:
            if name == agent:
                since = [] if answered else [*since, answered]
        assert health.count_failures(agent) == len(since)
        assert health.recommends_escalation(agent) == (len(since) >= ESCALATION_FAILURES)
        assert (agent in health.degraded) == (len(since) >= DEGRADED_FAILURES)
