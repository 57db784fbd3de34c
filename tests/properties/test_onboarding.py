"""Whatever a customer replies, a model reads and a CRM does: one question at a time, and nothing twice."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from core.settings import CrmSettings
from graphs.onboarding import SPEC
from nodes.deps import Deps
from nodes.onboarding.journey import find_next_question
from nodes.onboarding.state import PROFILE, QUESTIONS
from tests.support.graphs import NO_AGENTS
from tests.support.onboarding import AISHA, reader
from tests.support.profiles import examples
from tests.support.scripted import scripted_models
from tools.crm.client import CrmClient, create_http_client

FIELDS: Mapping[str, st.SearchStrategy[Any]] = {
    "company_size": st.integers(0, 10_000_000),
    "team_size": st.integers(0, 10_000_000),
    "industry": st.sampled_from(["", "Retail", "Health"]),
    "use_case": st.sampled_from(["", "campaigns", "imports"]),
    "integration": st.sampled_from(["", "Shopify"]),
    "first_task": st.sampled_from(["", "imports"]),
}
intents = st.sampled_from(
    ["information", "yes", "yes", "skip", "no", "later", "question", "unclear", "handover"]
)
readings = st.builds(
    lambda intent, fields: json.dumps({"intent": intent, **fields}),
    intents,
    st.fixed_dictionaries({}, optional=dict(FIELDS)),
)
replies = st.sampled_from(
    ["yes", "skip", "later", "person", "50", "no", "sim", "hello", "Retail?"]
) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
).filter(str.strip)


@dataclass(frozen=True, slots=True)
class Turn:
    """What the customer writes, what the model makes of it, and whether the CRM is there."""

    reply: str
    reading: str | Exception
    crm_is_up: bool


turns = st.lists(
    st.builds(
        Turn,
        replies | st.just("well, we are a company"),
        readings | readings | st.sampled_from(["no JSON", ConnectionError("no route")]),
        st.sampled_from([True, True, False]),
    ),
    max_size=14,
)


@dataclass
class Crm:
    """Keeps what it is told, once per key; while it is down it may do so too, and its answer is lost."""

    is_up: bool = True
    hears: bool = False
    profile: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, tuple[str, Any]] = field(default_factory=dict)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if not self.is_up and not (self.hears and request.method != "GET"):
            return httpx.Response(503)
        if request.method != "GET":
            self._keep(request.url.path, request.headers["Idempotency-Key"], json.loads(request.content))
        return httpx.Response(200, json=self._answer(request.url.path)) if self.is_up else httpx.Response(503)

    def _keep(self, path: str, key: str, body: Any) -> None:
        assert self.kept.setdefault(key, (path, body)) == (path, body), "a key was used for two changes"
        if path.endswith("/profile"):
            self.profile |= body

    def _answer(self, path: str) -> dict[str, Any]:
        if path.endswith("/search"):
            return {"articles": [{"id": "a", "title": "Imports", "body": "Open Contacts."}]}
        more = {"contact_id": AISHA, "created_at": "2026-01-01T00:00:00Z", "due_at": "2026-01-01T00:00:00Z"}
        texts = dict.fromkeys(("subject", "note", "team", "reason", "summary"), "x")
        return {"id": AISHA, "name": "Aisha", "profile": self.profile, **more, **texts}


@settings(max_examples=examples(80), deadline=None)
@given(turns=turns, starts_up=st.booleans(), hears=st.booleans())
async def test_every_journey_waits_for_one_question_or_has_ended(
    turns: list[Turn], starts_up: bool, hears: bool
) -> None:
    crm = Crm(is_up=starts_up, hears=hears)
    chosen = CrmSettings(max_attempts=1, rest_seconds=1e-6)
    model = reader()
    config: RunnableConfig = {
        "configurable": {"thread_id": str(uuid4())},
        "recursion_limit": SPEC.recursion_limit,
    }
    async with create_http_client(chosen, "http://crm", transport=httpx.MockTransport(crm)) as http:
        client = CrmClient(http, chosen)
        deps = Deps(models=scripted_models(model), tools={}, crm=client, agents=NO_AGENTS)
        graph = SPEC.build(deps).compile(checkpointer=InMemorySaver())
        begin = {"contact_id": AISHA}
        output = await graph.ainvoke(begin, config)
        settled: set[str] = set()
        for turn in turns:
            settled = _checked(output, settled)
            crm.is_up = turn.crm_is_up
            fault = turn.reading
            # As often as the model may be asked for one reply.
            model.replies = [fault] * 6
            waits = output["status"] == "in_progress"
            given: Any = (
                Command(resume={"reply": turn.reply}) if waits else {**begin, "message": turn.reply[:20]}
            )
            output = await graph.ainvoke(given, config)
        _checked(output, settled)
        crm.is_up = True
        output = await graph.ainvoke(begin, config)
        _checked(output, settled)
    assert output["unsaved"] == []
    assert {name: value for name, value in output["profile"].items() if value is not None} == crm.profile


def _checked(output: dict[str, Any], settled: set[str]) -> set[str]:
    """The invariants after each run; gives the profile's fields that are settled by now."""
    waiting = output.get("__interrupt__", ())
    assert len(waiting) == (output["status"] == "in_progress")
    assert output["handoff"]["required"] is (output["status"] == "handed_over")
    assert bool(output["summary"]) is (output["status"] != "in_progress")
    for pending in waiting:
        assert pending.value["question"] in QUESTIONS
        assert pending.value["question"] not in settled, "what was given is asked for again"
        assert pending.value["text"] == output["messages"][-1].text
    if output["status"] == "completed":
        assert all(step["status"] in {"done", "skipped"} for step in output["steps"])
        assert all(step["reason"] for step in output["steps"] if step["status"] == "skipped")
    known: set[str] = {name for name in PROFILE if output["profile"][name] is not None}
    assert settled <= known
    return known


@given(st.sets(st.sampled_from(QUESTIONS)))
def test_the_next_question_is_the_first_without_an_outcome(settled: set[Any]) -> None:
    outcomes: dict[Any, Any] = {name: {"status": "given", "reason": ""} for name in settled}
    following = find_next_question(outcomes)
    assert following not in settled
    assert (following is None) is (len(settled) == len(QUESTIONS))
    if following:
        assert set(QUESTIONS[: QUESTIONS.index(following)]) <= settled
