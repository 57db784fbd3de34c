"""A customer's onboarding, turn by turn, with a CRM that can be switched off."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command
from pydantic import BaseModel, Field

from core.context import Context
from core.models import ChatModels
from core.postgres import Pool
from core.settings import CrmSettings
from dev_crm.app import create_crm
from graphs.onboarding import SPEC
from nodes.deps import Deps
from nodes.onboarding.replies import Reading
from tests.support.graphs import NO_AGENTS, compiled
from tests.support.scripted import ScriptedChatModel, scripted_models
from tools.catalogue import crm_tools
from tools.crm.client import CrmClient, create_http_client

LAURA = "550e8400-e29b-41d4-a716-446655440000"  # company size and industry are known
AISHA = "d9d48706-0cfa-4077-8937-726c548a9553"  # nothing is known
MARCUS = "1cb6b3eb-298e-4c78-8758-c35109b6df7f"  # everything is known
JULIANA = "99e1d5e0-cd6e-4e71-9608-e3715880f36f"  # speaks Portuguese; industry and team size are known
UNAVAILABLE = [ConnectionError("no route")] * 3
TOUR = "First import your contacts."


class Onboarder(ScriptedChatModel):
    """Return scripted readings of replies, and the same text for any articles."""

    requests: list[list[BaseMessage]] = Field(default_factory=list)
    text: Any = TOUR

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        if messages[0].text.startswith("You read what a new customer writes"):
            return super()._next(messages)
        self.requests = [*self.requests, messages]
        if isinstance(self.text, Exception):
            raise self.text
        return AIMessage(self.text)


def make_reading(intent: str = "information", **answers: Any) -> Reading:
    """Return what the model reads from a reply."""
    return Reading.model_validate({"intent": intent, **answers})


class Line(httpx.AsyncBaseTransport):
    """The connection to the CRM: cut while ``down``; it loses the next ``lost`` responses to changes."""

    def __init__(self, to: httpx.AsyncBaseTransport) -> None:
        self._to = to
        self.down = False
        self.lost = 0
        self.changes: list[tuple[str, str]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("no route", request=request)
        response = await self._to.handle_async_request(request)
        if request.method != "GET":
            self.changes.append((request.url.path.rsplit("/", 1)[-1], request.headers["Idempotency-Key"]))
            if self.lost:
                self.lost -= 1
                raise httpx.ReadError("the line dropped", request=request)
        return response


@dataclass
class Journey:
    """One thread of the graph, driven as by the customer's channel."""

    graph: CompiledStateGraph[Any, Any, Any, Any]
    crm: CrmClient
    line: Line
    contact: str
    thread: str = "journey"
    context: Context = field(default_factory=Context)
    output: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> RunnableConfig:
        return {"configurable": {"thread_id": self.thread}, "recursion_limit": SPEC.recursion_limit}

    async def begin(self, message: str = "") -> dict[str, Any]:
        """Start a run on the thread."""
        return await self._run({"contact_id": self.contact, "message": message})

    async def reply(self, *replies: str) -> dict[str, Any]:
        """Answer the open question and those that follow."""
        for one in replies:
            assert self.question, f"nobody asked for {one!r}"
            await self._run(Command(resume={"reply": one}))
        return self.output

    async def _run(self, graph_input: Any) -> dict[str, Any]:
        self.output = await self.graph.ainvoke(
            graph_input, self.config, context=self.context, durability=SPEC.durability
        )
        return self.output

    @property
    def question(self) -> str | None:
        """The open question."""
        waiting = self.output.get("__interrupt__", ())
        return waiting[0].value["question"] if waiting else None

    @property
    def heard(self) -> str:
        """The last message to the customer."""
        return str(self.output["messages"][-1].text)

    def step(self, name: str) -> tuple[str, str]:
        """Return status and reason of a step."""
        [found] = [step for step in self.output["steps"] if step["name"] == name]
        return found["status"], found["reason"]


@asynccontextmanager
async def journey(
    pool: Pool, model: BaseChatModel | ChatModels, contact: str = AISHA, **more: Any
) -> AsyncIterator[Journey]:
    """Open a thread over the development CRM in the test's database."""
    models = scripted_models(model) if isinstance(model, BaseChatModel) else model
    crm_settings = CrmSettings(max_attempts=1, rest_seconds=1e-6)
    line = Line(httpx.ASGITransport(create_crm(pool, crm_settings.api_key)))
    async with create_http_client(crm_settings, "http://development-crm", transport=line) as http:
        crm = CrmClient(http, crm_settings)
        deps = Deps(models=models, tools=crm_tools(crm), crm=crm, agents=NO_AGENTS)
        yield Journey(await compiled(SPEC, deps, pool), crm, line, contact, **more)


def reader(*readings: BaseModel | str | Exception, **more: Any) -> Onboarder:
    """Return a model with these readings, in order."""
    return Onboarder(replies=list(readings), **more)
