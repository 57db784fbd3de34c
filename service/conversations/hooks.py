"""What happens around runs of our own graphs: a session is entered and closed, a journey is registered."""

from dataclasses import dataclass
from typing import Any

from graphs.spec import GraphSpec
from service.auth.principal import Identity
from service.conversations.journeys import JourneyRouter
from service.conversations.sessions import SESSION_GRAPH, SessionRuns
from service.runs.request import Hooks, OnStart


@dataclass(frozen=True, slots=True)
class RunHooks:
    """Builds the hooks of runs.

    Attributes:
        session_runs: Enters and closes the sessions of runs.
        journeys: Registers the journeys of runs.
    """

    session_runs: SessionRuns
    journeys: JourneyRouter

    def build(
        self,
        spec: GraphSpec | None,
        identity: Identity,
        graph_input: Any,
        *,
        thread_id: str,
        key: str = "",
        on_start: OnStart,
    ) -> Hooks:
        """Return the hooks of a run.

        Args:
            spec: The entry of its graph; ``None``: the graph is not ours, and nothing is done.
            identity: The caller.
            graph_input: Its input.
            thread_id: Its thread.
            key: Identifies the message or the request.
            on_start: Called last; returns the run's callbacks.
        """
        if spec is None:
            return Hooks(on_start, None)
        if spec is SESSION_GRAPH:
            on_start = self.session_runs.enter_on_start(
                identity, graph_input, thread_id=thread_id, key=key, on_start=on_start
            )
        on_start = self.journeys.register_on_start(
            spec, identity, graph_input, thread_id=thread_id, on_start=on_start
        )
        return Hooks(on_start, self.session_runs.close_on_finish(spec, identity, thread_id))
