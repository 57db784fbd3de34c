"""Cache policies: a node's key, and which results may be reused."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.cache.memory import InMemoryCache
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import CachePolicy
from typing_extensions import TypedDict

from checkpoints.cache import compute_cache_version
from core.context import Context, set_context
from core.errors import EmbeddingError
from graphs.caching import classify_cache_policy, is_cacheable, make_key_func
from nodes.coordinator.classifier import Candidate, Routing, Verdict
from nodes.coordinator.nodes import CoordinatorNodes
from nodes.coordinator.router import AgentRegistry
from nodes.coordinator.state import CoordinatorState
from nodes.deps import Deps
from tests.support.agents import load_shipped_agents
from tests.support.profiles import examples
from tests.support.scripted import ScriptedChatModel, scripted_models

ACME = Context(tenant="acme")
EARLIER = [HumanMessage("My invoice is wrong.", id="1"), AIMessage("Which one?", id="2")]
STATE: dict[str, Any] = {
    "messages": [*EARLIER, HumanMessage("The last one.", id="turn")],
    "turn": "turn",
    "message": "The last one.",
    "unclear_message": "",
    "last_agent": "billing_support",
    "summary": "",
    "summarised_to": "",
}


class OneRouter:
    """Routes every text the same way, or fails."""

    model = "test:embeddings"

    def __init__(self, verdict: Verdict, *, fails: bool = False) -> None:
        self._verdict = verdict
        self._fails = fails

    async def route_parts(self, text: str) -> tuple[tuple[str, Routing], ...]:
        if self._fails:
            raise EmbeddingError("the embedding model is unavailable")
        found = Routing(
            route="closing",
            confidence=0.6,
            margin=0.1,
            verdict=self._verdict,
            alternatives=(Candidate("negotiation", 0.3),),
            familiarity=0.9,
        )
        return ((text, found),)


def deps_with(verdict: Verdict = "sure", *replies: Any, fails: bool = False) -> Deps:
    return Deps(
        models=scripted_models(ScriptedChatModel(replies=list(replies))),
        tools={},
        crm=cast("Any", None),
        agents=load_shipped_agents(router=cast("Any", OneRouter(verdict, fails=fails))),
    )


DEPS = deps_with()


def key(deps: Deps = DEPS, *, run: Context | None = ACME, **changed: Any) -> str:
    """Return the key of ``classify`` as in a run, in a task of its own."""

    async def as_run() -> str:
        if run:
            set_context(run)
        made: str = classify_cache_policy(deps).key_func(cast("CoordinatorState", {**STATE, **changed}))
        return made

    return asyncio.run(as_run())


def other_roster() -> Deps:
    agents = dict(DEPS.agents.specs)
    agents["closing"] = agents["closing"].model_copy(update={"description": "Something else."})
    return replace(DEPS, agents=AgentRegistry(specs=agents, router=DEPS.agents.router))


def test_the_same_words_in_the_same_conversation_have_the_same_key_for_every_contact() -> None:
    elsewhere = [message.model_copy(update={"id": f"other-{message.id}"}) for message in EARLIER]
    again: dict[str, Any] = {"messages": [*elsewhere, HumanMessage("The last one.", id="t2")], "turn": "t2"}
    assert key() == key(contact_id="another", customer="{}", session_id="s", **again)
    assert key() == key(run=replace(ACME, user="another", locale="pt-BR"))


@pytest.mark.parametrize(
    "changed",
    [
        {"message": "The first one."},
        {"unclear_message": "Help!"},
        {"last_agent": ""},
        {"summary": "They were angry."},
        {"messages": [HumanMessage("Other words.", id="1")]},
        {"run": Context(tenant="globex")},
        {"run": replace(ACME, model="test:other")},
        {"deps": other_roster()},
    ],
)
def test_everything_the_decision_depends_on_is_in_the_key(changed: dict[str, Any]) -> None:
    assert key(**changed) != key()


def test_outside_a_run_nothing_is_ever_found() -> None:
    assert key(run=None) != key(run=None)


@settings(max_examples=examples(30))
@given(one=st.tuples(st.text(), st.text(), st.text()), other=st.tuples(st.text(), st.text(), st.text()))
def test_no_text_can_move_from_one_part_of_a_key_to_another(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    """Neither quotes nor separators help, and no text can pass for a tenant."""

    def made(parts: tuple[str, str, str]) -> str:
        async def as_run() -> str:
            set_context(Context(tenant=parts[0]))
            return make_key_func("step", lambda state, _: state)(parts[1:])

        return asyncio.run(as_run())

    assert (made(one) == made(other)) == (one == other)


class RecordingState(dict[str, Any]):
    """A state that records what is read from it."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)


@pytest.mark.parametrize("verdict", ["sure", "close", "unknown"])
@pytest.mark.parametrize("last", ["", "billing_support"])
async def test_the_decision_reads_nothing_that_is_not_in_its_key(verdict: Verdict, last: str) -> None:
    """If ``classify`` comes to read more of the state, the key must cover it too."""
    values = {**STATE, "last_agent": last}
    in_key, decided = RecordingState(values), RecordingState(values)
    set_context(ACME)
    classify_cache_policy(DEPS).key_func(cast("CoordinatorState", in_key))
    deps = deps_with(verdict, '{"agent": "closing"}')
    await CoordinatorNodes(deps, {}).classify(
        cast("CoordinatorState", decided), runtime=Runtime(context=ACME)
    )
    assert decided.read <= in_key.read


@pytest.mark.parametrize(
    ("deps", "last", "cacheable"),
    [
        (deps_with("sure"), "", True),
        (deps_with("close", '{"agent": "closing"}'), "", True),
        (deps_with("unknown"), "billing_support", True),
        (deps_with("close", "not JSON", "not JSON"), "", False),
        (deps_with(fails=True), "", False),
    ],
)
async def test_only_reliable_decisions_are_cached(deps: Deps, last: str, cacheable: bool) -> None:
    state = cast("CoordinatorState", {**STATE, "last_agent": last})
    went = await CoordinatorNodes(deps, {}).classify(state, runtime=Runtime(context=ACME))
    assert isinstance(went.update, dict)
    assert is_cacheable("classify", went.update) is cacheable


class _State(TypedDict):
    text: str


def _graph(name: str) -> Callable[[str], Any]:
    """Build a graph whose node ``classify`` is cached; two such graphs share a namespace."""

    async def node(state: _State) -> _State:
        return {"text": name}

    def read(state: _State, _: Context) -> list[str]:
        return [state["text"]]

    graph = StateGraph(_State)
    graph.add_node("classify", node, cache_policy=CachePolicy(key_func=make_key_func(name, read)))
    graph.add_edge(START, "classify")
    compiled = graph.compile(cache=CACHE)
    return lambda text: compiled.ainvoke({"text": text})


CACHE: InMemoryCache[Any] = InMemoryCache()


async def test_nodes_of_one_name_in_two_graphs_do_not_share_results() -> None:
    set_context(ACME)
    one, other = _graph("one"), _graph("other")
    assert await one("Hi") == {"text": "one"}
    assert await other("Hi") == {"text": "other"}
    namespaces = list(CACHE._cache)
    assert len(namespaces) == 1, "LangGraph itself now tells the graphs apart, so the key need not"


def test_a_release_or_graph_that_differs_has_another_cache_version() -> None:
    class Wider(_State):
        more: str

    plain, renamed, wider = StateGraph(_State), StateGraph(_State), StateGraph(Wider)
    for graph, node in ((plain, "one"), (renamed, "other"), (wider, "one")):
        graph.add_node(node, lambda state: state)
    versions = {compute_cache_version("1", {"graph": graph}) for graph in (plain, plain)}
    assert len(versions) == 1
    versions |= {compute_cache_version("1", {"graph": graph}) for graph in (renamed, wider)}
    versions.add(compute_cache_version("2", {"graph": plain}))
    assert len(versions) == 4
