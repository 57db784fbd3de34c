"""What holds of the agents' health, whatever happens in whatever order."""

from hypothesis import given
from hypothesis import strategies as st

from nodes.coordinator.health import DEGRADED, RECOMMENDS_ESCALATION, AgentHealth


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_only_failures_since_an_agents_last_success_count(events: list[tuple[str, bool]]) -> None:
    health = AgentHealth()
    for agent, answered in events:
        (health.succeeded if answered else health.failed)(agent)
    for agent in "abc":
        since: list[bool] = []
        for name, answered in events:
            if name == agent:
                since = [] if answered else [*since, answered]
        assert health.failures(agent) == len(since)
        assert health.recommends_escalation(agent) == (len(since) >= RECOMMENDS_ESCALATION)
        assert (agent in health.degraded) == (len(since) >= DEGRADED)
